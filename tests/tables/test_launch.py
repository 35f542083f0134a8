"""Launching runs: order, failure, resuming, the shares of a machine, and the jobs of a cluster."""

import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from concurrent.futures import Future
from pathlib import Path

import psutil
import pytest
from helpers.tiny import ROOT
from submitit.core.utils import FailedJobError, FailedSubmissionError

from ser_mtl.errors import UserError
from ser_mtl.files import write_json
from ser_mtl.tables import launch as launching
from ser_mtl.tables.arguments import parse_arguments
from ser_mtl.tables.launch import Cluster, ThisMachine, launch, reason_in, run_all, shares
from ser_mtl.tables.plan import Run, choose_rows, plan


class Machine:
    """Jobs that end when they are polled for the second time. Those named in `failing` fail, all others finish."""

    def __init__(self, at_once: int = 1, failing: tuple[str, ...] = ()):
        self.at_once, self.failing = at_once, failing
        self.submitted: list[Run] = []
        self.under_way = self.most = 0

    def submit(self, run: Run) -> "Machine.Job":
        self.submitted.append(run)
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        return self.Job(self, run)

    class Job(Future):
        def __init__(self, machine: "Machine", run: Run):
            super().__init__()
            self.machine, self.run, self.looks = machine, run, 0

        def done(self) -> bool:
            self.looks += 1
            if self.looks == 2:
                self.machine.under_way -= 1
                if self.run.name in self.machine.failing:
                    self.set_result("out of memory (exit code 1)")
                else:
                    finish(self.run)
                    self.set_result(None)
            return self.looks >= 2


def finish(run: Run) -> None:
    write_json(run.folder / "results.json", {"minutes": 1.0, "audio_seconds_per_second": 1.0})


@pytest.fixture(autouse=True)
def hurry(monkeypatch):
    monkeypatch.setattr("ser_mtl.tables.launch._SECONDS_BETWEEN_LOOKS", 0.01)


def test_runs_that_depend_on_a_failed_run_are_skipped(tmp_path):
    runs = plan(choose_rows([2], [], []), [1], [0], tmp_path)
    machine = Machine(failing=("t1-full-ser-asr",))
    failed = run_all(runs, machine)
    assert {run.name: reason for run, reason in failed.items()} == {
        "t1-full-ser-asr": "out of memory (exit code 1)",
        "t2-full-full": "skipped, because t1-full-ser-asr failed",
        "t2-full-adapters": "skipped, because t1-full-ser-asr failed",
    }
    assert [run.name for run in machine.submitted] == ["t1-adapters-ser-asr", "t2-adapters-adapters", "t1-full-ser-asr"]


def test_a_row_whose_step_cannot_be_trained_is_skipped_and_the_others_go_on(tmp_path):
    runs = plan(choose_rows([], ["t4-chen-tapt", "t4-chen-ptapt"], []), [1], [0], tmp_path)
    failed = run_all(runs, Machine(failing=("t4-chen-tapt-pretrain",)))
    assert {run.name for run in failed} == {"t4-chen-tapt-pretrain", "t4-chen-tapt"}
    line = "pretrain.py: --encoder m: is moonshine, which transformers cannot pretrain"
    assert reason_in(f"10%|x\n{line}\nUserWarning: leaked\n", 2) == f"{line} (exit code 2)"


def test_a_failed_run_is_tried_again_the_next_time(tmp_path):
    runs = plan(choose_rows([2], [], []), [1], [0], tmp_path)
    run_all(runs, Machine(failing=("t2-full-full",)))
    again = Machine()
    assert run_all(runs, again) == {}
    assert [run.name for run in again.submitted] == ["t2-full-full"]


def test_a_finished_run_is_not_run_again(tmp_path):
    runs = plan(choose_rows([1], [], []), [1, 2], [0], tmp_path)
    finish(runs[0])
    machine = Machine(at_once=99)
    assert run_all(runs, machine) == {}
    assert machine.submitted == runs[1:]
    rest = Machine()
    assert run_all(runs, rest) == {} and rest.submitted == []


@pytest.mark.parametrize("at_once", [1, 3])
def test_runs_at_a_time_are_limited_and_stage_1_comes_first(tmp_path, at_once):
    runs = plan(choose_rows([1, 2, 3], [], []), [1], [0], tmp_path)
    machine = Machine(at_once)

    def submit(run, submit=machine.submit):
        assert all(one.state == "finished" for _, one in run.starts)
        return submit(run)

    machine.submit = submit
    assert run_all(runs, machine) == {}
    assert machine.most == at_once
    assert len(machine.submitted) == 14


@pytest.mark.parametrize(
    ("jobs", "gpus", "expected"),
    [
        (1, ["0", "1"], [(2, "0,1")]),
        (2, ["0", "1"], [(1, "0"), (1, "1")]),
        (2, ["4", "5", "6"], [(2, "4,6"), (1, "5")]),
        (3, ["0"], [(1, "0")] * 3),
    ],
)
def test_gpus_are_shared_out(jobs, gpus, expected):
    dealt = [(one["processes"], one["environment"]["CUDA_VISIBLE_DEVICES"]) for one in shares(jobs, gpus, 8)]
    assert dealt == expected


def test_cores_are_shared_out_without_a_gpu(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert shares(3, [], 8) == [{"processes": 1, "environment": {"OMP_NUM_THREADS": "2"}}] * 3
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert shares(1, [], 8)[0]["environment"] == {"OMP_NUM_THREADS": "5"}


def test_the_number_of_threads_of_accelerate_is_not_the_users(monkeypatch):
    for name in [name for name in os.environ if name.startswith("ACCELERATE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert shares(2, [], 8)[0]["environment"] == {"OMP_NUM_THREADS": "1"}
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    assert shares(2, [], 8)[0]["environment"] == {"OMP_NUM_THREADS": "4"}


def test_a_row_of_one_process_gets_one_on_any_machine(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(launching, "_LAUNCH", (sys.executable, "-c", "import sys; print(sys.argv[1:])"))
    for name in ("t5-full-all-pcgrad", "t1-full-all"):
        (run,) = plan(choose_rows([], [name], []), [1], [0], tmp_path)
        launch(run, [], processes=4, environment={})
        asked.append(run.log.read_text().split("'--num_processes', '")[1][0])
    assert asked == ["1", "4"]


@pytest.mark.parametrize("error", [FailedJobError, FailedSubmissionError])
def test_a_job_that_cannot_be_queued_fails_alone(tmp_path, error):
    runs = plan(choose_rows([1], [], []), [1], [0], tmp_path)
    machine = Machine()
    usual = machine.submit

    def submit(run):
        if run.name == "t1-full-ser":
            raise error("loading\nsbatch: error: invalid partition\n")
        return usual(run)

    machine.submit = submit
    failed = run_all(runs, machine)
    assert {run.name: why for run, why in failed.items()} == {
        "t1-full-ser": f"{error.__name__}: sbatch: error: invalid partition"
    }
    assert all(run.state == "finished" for run in runs if run not in failed)


def test_a_job_that_ends_without_a_word_fails_alone(tmp_path):
    (run,) = plan(choose_rows([], ["t1-full-ser"], []), [1], [0], tmp_path)
    machine, job = Machine(), Future()
    job.set_exception(MemoryError())
    machine.submit = lambda run: job
    assert run_all([run], machine) == {run: "MemoryError"}


def test_waiting_for_a_run_does_not_fill_a_log(tmp_path, monkeypatch, capsys):
    (run,) = plan(choose_rows([], ["t1-full-ser"], []), [1], [0], tmp_path)
    machine, job, looks = Machine(), Future(), iter([False] * 100)
    job.set_result("failed")
    job.done = lambda: next(looks, True)
    machine.submit = lambda run: job
    monkeypatch.setattr(launching, "_SECONDS_BETWEEN_LOOKS", 0)
    assert run_all([run], machine) == {run: "failed"}
    assert 1 <= capsys.readouterr().err.count("t1-full-ser, fold 1") < 10


@pytest.mark.parametrize(
    ("options", "cluster", "said"),
    [
        ({"gpu_per_node": 1}, "local", "--slurm_options: .*gpu_per_node"),
        ({"timeout_min": "2h"}, "local", "--slurm_options: "),
        ({}, "slurm", "--launcher slurm: .*srun"),
    ],
)
def test_a_missing_cluster_or_unknown_option_is_named(tmp_path, monkeypatch, options, cluster, said):
    monkeypatch.setenv("PATH", str(tmp_path))  # no srun, even on a machine of a cluster
    with pytest.raises(UserError, match=said):
        Cluster(tmp_path, options, lambda run: [], cluster)


def test_the_reason_is_the_scripts_line_or_the_last_of_the_log():
    said = "run_stage1.py: --tasks style: nothing is annotated"
    assert reason_in(f"loading\n{said}\nTraceback:\nboom\n", 1) == f"{said} (exit code 1)"
    assert reason_in("Traceback:\nValueError: boom\n\r  3%|#  | 1/30\n", 1) == "ValueError: boom (exit code 1)"
    assert reason_in("", -9) == "it printed nothing (exit code -9)"


# ------------------------------------------------------------------------------------------------- the real thing


def tables_flags(corpus: Path, encoder: Path, output: Path, *more: str) -> list[str]:
    flags = ["--corpus", "folder", "--data_dir", corpus, "--encoder", encoder, "--output_dir", output, "--folds", "1"]
    flags += [
        "--selection",
        "last",
        "--dev",
        "none",
        "--use_cpu",
        "--per_device_train_batch_size",
        "8",
        "--save_minutes",
        "0",
    ]
    return [*map(str, flags), *more]


def only_run(flags: list[str]) -> tuple[Run, ThisMachine]:
    args = parse_arguments([*flags, "--rows", "t1-full-ser"])
    (run,) = plan(choose_rows([], args.rows, []), args.folds, args.seeds, args.output_dir)
    return run, ThisMachine(1, args.flags_of)


def test_a_stopped_program_ends_its_runs_which_resume_and_a_finished_one_stays(
    good_corpus, encoder, python, tmp_path, monkeypatch
):
    flags = tables_flags(good_corpus, encoder, tmp_path, "--num_train_epochs", "30")
    script = """if True:
        import sys, test_launch
        from ser_mtl.cli import command_line
        run, machine = test_launch.only_run(sys.argv[1:])
        command_line(lambda: test_launch.run_all([run], machine), program="tables")
    """
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(str(ROOT / folder) for folder in (".", "tests", "tests/tables"))
    }
    first = subprocess.Popen([sys.executable, "-c", script, *flags], env=environment, stderr=subprocess.PIPE, text=True)
    run, machine = only_run(flags)
    while not list(run.folder.glob("checkpoint-*/trainer_state.json")):
        assert first.poll() is None, run.log.read_text()
        time.sleep(0.05)
    runs = psutil.Process(first.pid).children(recursive=True)
    assert len(runs) >= 2  # the launcher and the script
    first.send_signal(signal.SIGTERM)
    errors = first.communicate()[1]
    assert (first.returncode, "t1-full-ser, fold 1, seed 0" in errors) == (143, True)  # the bar says what runs
    assert errors.endswith("tables: stopped by SIGTERM\n")
    assert not [process for process in runs if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]
    assert run.state == "interrupted"
    assert "run_stage1.py: stopped by SIGTERM" in run.log.read_text()
    monkeypatch.setattr(launching, "_LAUNCH", (python, *launching._LAUNCH[1:]))
    assert run_all([run], machine) == {}
    history = json.loads((run.folder / "history.json").read_text())
    losses = [entry for entry in history if "loss" in entry]
    assert [entry["epoch"] for entry in losses] == list(range(1, 31))  # each epoch once
    written = (run.folder / "results.json").stat().st_mtime_ns, run.log.stat().st_size
    assert machine.submit(run).result() is None
    assert written == ((run.folder / "results.json").stat().st_mtime_ns, run.log.stat().st_size)


def test_jobs_of_a_cluster_end_with_their_reason(good_corpus, encoder, python, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", python)
    flags = tables_flags(good_corpus, tmp_path / "no-encoder", tmp_path / "out", "--num_train_epochs", "1")
    args = parse_arguments([*flags, "--rows", "t2-full-adapters"])
    runs = plan(choose_rows([], args.rows, []), args.folds, args.seeds, args.output_dir)
    failed = run_all(runs, Cluster(tmp_path / "jobs", {"timeout_min": 5}, args.flags_of, cluster="local"))
    reasons = {run.name: reason for run, reason in failed.items()}
    assert reasons["t1-full-ser-asr"].startswith("run_stage1.py: --encoder ")
    assert reasons["t2-full-adapters"] == "skipped, because t1-full-ser-asr failed"


def test_runs_of_an_installed_wheel_use_its_scripts(wheel, tmp_path):
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    code = """if True:
        from pathlib import Path
        from ser_mtl.tables import launch, plan
        (run,) = plan.plan(plan.choose_rows([], ["t1-full-ser"], []), [1], [0], Path("tables"))
        print(launch._SCRIPTS, launch.launch(run, ["--fold", "7"], processes=1, environment={}), sep="\\n")
    """
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "site")}
    ended = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    folder, reason = ended.stdout.splitlines()
    assert folder == str(tmp_path / "site")
    assert reason.startswith("run_stage1.py: --fold 7: must be one of 1 to 5")
