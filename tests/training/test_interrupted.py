"""A run that is stopped, killed or moved goes on and ends as if nothing had happened, or says why it cannot."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers.tiny import ROOT, Ended, check_refused, contents, run_flags, run_script
from helpers.trainers import noise_trainer

from ser_mtl.corpora.batching import LengthGroupedSampler
from ser_mtl.errors import UserError
from ser_mtl.lock import lock, release
from ser_mtl.training import outcome
from ser_mtl.training.checkpoints import damage, rotate

EPOCHS = 3
RESULTS = ("predictions.jsonl", "model.safetensors", "split.json")
TIMES = ("_runtime", "_per_second")


def flags_of(corpus: Path, encoder: Path, output: Path, **more) -> list[object]:
    """A run whose dev does not get better, so that the best epoch is the first."""
    values = {"encoder": encoder, "save_minutes": 0, "num_train_epochs": EPOCHS, "learning_rate": 1e-6} | more
    return run_flags(corpus, output, **values)


def run(*args, **more) -> Ended:
    return run_script("run_stage1", flags_of(*args, **more))


def in_epoch(monkeypatch, epoch: int, happens) -> None:
    """Let something happen when this epoch begins."""
    usual = LengthGroupedSampler.set_epoch

    def set_epoch(sampler: LengthGroupedSampler, begun: int) -> None:
        if begun == epoch:
            happens()
        usual(sampler, begun)

    monkeypatch.setattr(LengthGroupedSampler, "set_epoch", set_epoch)


def fail() -> None:
    raise KeyboardInterrupt


def checkpoints(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*checkpoint-*"))


def history(folder: Path) -> list[dict]:
    entries = json.loads((folder / "history.json").read_text())
    return [{name: value for name, value in entry.items() if not name.endswith(TIMES)} for entry in entries]


def check_same(folder: Path, other: Path) -> None:
    """The results are the same, in every bit that is not a time; so are the names of the files."""
    for file in RESULTS:
        assert (folder / file).read_bytes() == (other / file).read_bytes(), file
    assert history(folder) == history(other)
    assert sorted(path.name for path in folder.iterdir()) == sorted(path.name for path in other.iterdir())


@pytest.fixture(scope="module")
def undisturbed(good_corpus, encoder, tmp_path_factory) -> Path:
    """A finished run of three epochs. Not to be changed."""
    output = tmp_path_factory.mktemp("undisturbed") / "out"
    ended = run(good_corpus, encoder, output)
    assert ended.code == 0, ended.stderr
    assert json.loads((output / "results.json").read_text())["epoch"] == 1
    return output


@pytest.fixture(scope="module")
def interrupted(good_corpus, encoder, tmp_path_factory) -> Path:
    """The same run, interrupted in its last epoch. Not to be changed."""
    output = tmp_path_factory.mktemp("interrupted") / "out"
    with pytest.MonkeyPatch.context() as patched:
        in_epoch(patched, EPOCHS - 1, fail)
        assert run(good_corpus, encoder, output).code == 130
    assert checkpoints(output) == ["checkpoint-3", "checkpoint-6"]  # the best, the last
    return output


@pytest.fixture
def again(interrupted, tmp_path) -> Path:
    """A copy of the interrupted run, in another folder than that of its beginning."""
    return shutil.copytree(interrupted, tmp_path / "moved")


# ----------------------------------------------------------------------------------------------- one run a folder


@pytest.fixture
def other_process(again) -> subprocess.Popen:
    """A process that has the folder of the interrupted run."""
    code = f"from pathlib import Path; from ser_mtl.lock import lock; lock(Path({str(again)!r}))"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-c", f"{code}; print('locked', flush=True); input()"],
        env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout.readline() == "locked\n"
    yield process
    process.kill()
    process.communicate()


@pytest.mark.parametrize("seed", [42, 7], ids=["the same run", "another seed"])
def test_a_folder_where_a_run_is_at_work_is_refused(good_corpus, encoder, again, other_process, seed):
    said = "a run is at work there", f"process {other_process.pid}"
    flags = flags_of(good_corpus, encoder, again, seed=seed)
    check_refused("run_stage1", flags, "--output_dir", again, *(said if seed == 42 else ["another run"]))


def test_the_lock_goes_with_its_process_even_when_it_is_killed(again, other_process):
    with pytest.raises(UserError, match="a run is at work there"):
        lock(again)
    other_process.kill()
    other_process.wait()
    lock(again)
    release(again)
    assert not (again / ".lock").exists()


def test_a_folder_of_a_run_killed_before_it_wrote_anything_is_free(good_corpus, encoder, undisturbed, tmp_path):
    (tmp_path / "out/.partial.checkpoint").mkdir(parents=True)
    (tmp_path / "out/.lock").write_text("process 1 on nowhere")
    assert run(good_corpus, encoder, tmp_path / "out").code == 0
    check_same(tmp_path / "out", undisturbed)


# --------------------------------------------------------------------------------------------------- checkpoints


def test_a_moved_run_keeps_its_best_epoch(good_corpus, encoder, again, undisturbed, monkeypatch):
    monkeypatch.chdir(again.parent)
    data_dir = os.path.relpath(good_corpus)
    ended = run(good_corpus, encoder, Path("moved"), data_dir=data_dir)
    assert ended.code == 0, ended.stderr
    check_same(again, undisturbed)


@pytest.mark.parametrize("gone", ["", "model.safetensors"], ids=["folder", "weights"])
def test_a_run_without_its_best_epoch_does_not_finish(good_corpus, encoder, again, gone):
    shutil.move(again / "checkpoint-3" / gone, again.parent / "elsewhere")
    flags = flags_of(good_corpus, encoder, again)
    check_refused("run_stage1", flags, "--output_dir", again, "checkpoint-3, the best one", "missing")


def truncate(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def fill_with_zeros(file: Path) -> None:
    file.write_bytes(bytes(file.stat().st_size))


@pytest.mark.parametrize("harm", [Path.unlink, truncate, fill_with_zeros])
@pytest.mark.parametrize("file", ["model.safetensors", "optimizer.pt", "rng_state.pth", "trainer_state.json"])
def test_a_damaged_checkpoint_is_known(again, file, harm):
    assert damage(again / "checkpoint-6") is None
    harm(again / "checkpoint-6" / file)
    assert file in damage(again / "checkpoint-6")


def test_the_newest_whole_checkpoint_is_used_and_said(good_corpus, encoder, again, undisturbed):
    (again / "checkpoint-6/optimizer.pt").unlink()
    (again / "checkpoint-9").mkdir()
    ended = run(good_corpus, encoder, again)
    assert ended.code == 0, ended.stderr
    assert "checkpoint-6 is not whole (optimizer.pt is missing)" in ended.stdout
    assert "checkpoint-9 is not whole" in ended.stdout
    assert "epoch 2:" in ended.stdout and "epoch 1:" not in ended.stdout
    check_same(again, undisturbed)


def test_a_run_without_a_whole_checkpoint_starts_again(good_corpus, encoder, again, undisturbed):
    for name in checkpoints(again):
        truncate(again / name / "rng_state.pth")
    ended = run(good_corpus, encoder, again)
    assert (ended.code, "epoch 1:" in ended.stdout) == (0, True)
    check_same(again, undisturbed)


def test_the_best_and_the_newest_checkpoints_stay(tmp_path):
    def after(limit: int | None, kept: set[int]) -> list[int]:
        for step in (2, 4, 6, 8):
            (tmp_path / f"checkpoint-{step}").mkdir(exist_ok=True)
        rotate(tmp_path, limit, kept)
        assert not list(tmp_path.glob(".partial.*"))
        return sorted(int(path.name.split("-")[1]) for path in tmp_path.iterdir())

    assert after(1, {2, 8}) == [2, 8]
    assert after(1, {8}) == [8]
    assert after(3, {2, 8}) == [2, 6, 8]
    assert after(None, {8}) == after(0, {8}) == [2, 4, 6, 8]


@pytest.mark.parametrize("file", ["optimizer.pt", "rng_state.pth", "model.safetensors"])
def test_a_checkpoint_of_an_earlier_version_has_no_digests(again, file):
    (again / "checkpoint-6/files.json").unlink()
    assert damage(again / "checkpoint-6") is None
    (again / "checkpoint-6" / file).unlink()
    assert "is missing" in damage(again / "checkpoint-6")


@pytest.mark.parametrize("file", ["optimizer.pt", "rng_state.pth", "model.safetensors"])
def test_half_a_file_is_damage_without_digests_too(again, file):
    (again / "checkpoint-6/files.json").unlink()
    half = (again / "checkpoint-6" / file).read_bytes()
    (again / "checkpoint-6" / file).write_bytes(half[: len(half) // 2])
    assert damage(again / "checkpoint-6") == f"{file} is damaged"


@pytest.mark.parametrize("state", [{"global_step": 3}, {"log_history": None}, {"epoch": "two"}], ids=str)
def test_a_state_that_training_cannot_go_on_from_is_damage(again, state):
    file = again / "checkpoint-6/trainer_state.json"
    file.write_text(
        json.dumps(state if len(state) == 1 and "global_step" in state else json.loads(file.read_text()) | state)
    )
    assert "trainer_state.json" in damage(again / "checkpoint-6")


def test_a_checkpoint_to_resume_from_must_be_there(good_corpus, encoder, again):
    flags = flags_of(good_corpus, encoder, again, resume_from_checkpoint="/nonexistent")
    check_refused("run_stage1", flags, "--resume_from_checkpoint /nonexistent", "missing")


def test_the_checkpoint_that_is_named_is_resumed_from(good_corpus, encoder, again, undisturbed):
    ended = run(good_corpus, encoder, again, resume_from_checkpoint=again / "checkpoint-3")
    assert (ended.code, "epoch 2:" in ended.stdout) == (0, True)
    check_same(again, undisturbed)


def test_death_after_the_last_epoch_costs_no_training(good_corpus, encoder, undisturbed, tmp_path, monkeypatch):
    flags = good_corpus, encoder, tmp_path / "out"
    with monkeypatch.context() as patched:
        patched.setattr("ser_mtl.training.outcome.predict_test", lambda trainer: fail())
        assert run(*flags, save_minutes=10).code == 130
    assert checkpoints(tmp_path / "out") == ["checkpoint-3", "checkpoint-9"]
    ended = run(*flags, save_minutes=10)
    assert (ended.code, "epoch " in ended.stdout.split("\n\n")[0]) == (0, False)
    check_same(tmp_path / "out", undisturbed)


def test_death_after_a_last_epoch_cut_short_changes_no_result(good_corpus, encoder, tmp_path, monkeypatch):
    for output in ("undisturbed", "killed"):
        with monkeypatch.context() as patched:
            if output == "killed":
                patched.setattr("ser_mtl.training.outcome.predict_test", lambda trainer: fail())
                assert run(good_corpus, encoder, tmp_path / output, num_train_epochs=1.5).code == 130
        assert run(good_corpus, encoder, tmp_path / output, num_train_epochs=1.5).code == 0
    check_same(tmp_path / "killed", tmp_path / "undisturbed")


def test_a_finished_run_loses_what_an_interruption_left(good_corpus, encoder, undisturbed, tmp_path):
    output = shutil.copytree(undisturbed, tmp_path / "out")
    before = contents(output)
    for name in ("checkpoint-9", "damaged-checkpoint-6", ".partial.checkpoint"):
        (output / name).mkdir()
    assert run(good_corpus, encoder, output).code == 0
    assert contents(output) == before
    assert sorted(path.name for path in output.iterdir()) == sorted(path.name for path in undisturbed.iterdir())


def test_losses_of_two_processes_go_on_in_one(tmp_path):
    trainer = noise_trainer(tmp_path)
    common = {"trained": 7.0, "last_log": 2, "first_update_summed": 2}
    trainer._saved_losses = [
        common | {"since_log": 1.0, "sums": {"emotion": 0.5}},
        common | {"since_log": 3.0, "sums": {"emotion": 0.25}},
    ]
    trainer.restore_losses()
    # A log takes the mean of the first over the processes, and the sum of the second.
    assert (float(trainer._tr_loss), float(trainer._loss_sums["emotion"])) == (2.0, 0.75)
    assert (trainer._total_loss_scalar, trainer._globalstep_last_logged) == (7.0, 2)


# ------------------------------------------------------------------------------------------------------- signals


@pytest.mark.parametrize(
    ("number", "more"),
    [(signal.SIGTERM, {}), (signal.SIGUSR1, {}), (signal.SIGTERM, {"enable_jit_checkpoint": True})],
    ids=["SIGTERM", "SIGUSR1", "jit"],
)
def test_a_signal_stops_a_run_with_a_checkpoint(good_corpus, encoder, undisturbed, tmp_path, monkeypatch, number, more):
    output = tmp_path / "out"
    with monkeypatch.context() as patched:
        in_epoch(patched, 1, lambda: os.kill(os.getpid(), number))
        ended = run(good_corpus, encoder, output, save_minutes=10, **more)
    assert ended.code == 143
    assert f"run_stage1.py: stopped by {number.name}" in ended.stderr
    assert checkpoints(output) == ["checkpoint-3", "checkpoint-4"]  # after the update, within the epoch
    assert not (output / "results.json").exists()
    if not more:
        assert run(good_corpus, encoder, output, save_minutes=10).code == 0
        check_same(output, undisturbed)


def test_a_program_ends_with_its_launcher(tmp_path):
    program, launcher = tmp_path / "program.py", tmp_path / "accelerate"
    program.write_text(
        "import os, time\n"
        "from ser_mtl.cli import command_line\n"
        "print(os.getpid(), flush=True)\n"
        "command_line(lambda: time.sleep(60))\n"
    )
    launcher.write_text(f"import subprocess, sys\nsubprocess.run([sys.executable, {str(program)!r}])\n")
    environment = os.environ | {"PYTHONPATH": str(ROOT), "ACCELERATE_MIXED_PRECISION": "no"}
    process = subprocess.Popen(
        [sys.executable, launcher], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    process.stdout.readline()
    time.sleep(1)
    process.terminate()
    # Standard error is closed when the last of the two ends.
    assert process.communicate(timeout=10)[1] == "program.py: stopped by SIGTERM\n"


# ------------------------------------------------------------------------------------------------ early stopping


PATIENT = {"num_train_epochs": 6, "early_stopping_patience": 2}


@pytest.fixture(scope="module", params=["epoch", "steps"])
def stopped(request, good_corpus, encoder, tmp_path_factory) -> tuple[Path, dict]:
    """A finished run that stopped early, and its flags: the first evaluation was the best, the third the last."""
    output = tmp_path_factory.mktemp(f"stopped_{request.param}") / "out"
    flags = PATIENT | ({"eval_strategy": "steps", "save_strategy": "steps", "eval_steps": 4, "save_steps": 4}
                       if request.param == "steps" else {})  # fmt: skip
    ended = run(good_corpus, encoder, output, **flags)
    assert ended.code == 0, ended.stderr
    results = json.loads((output / "results.json").read_text())
    # Three updates an epoch: evaluations after updates 4, 8 and 12.
    assert (results["epoch"], results["stopped_at_epoch"]) == ((1, 3) if request.param == "epoch" else (1.33, 4))
    assert f"stopped early, after epoch {results['stopped_at_epoch']:g} (" in ended.stdout
    rates = [entry["learning_rate"] for entry in history(output) if "learning_rate" in entry]
    assert rates[-1] > 0.3 * max(rates)  # the schedule is that of all six epochs
    return output, flags


def test_patience_survives_an_interruption(good_corpus, encoder, stopped, tmp_path, monkeypatch):
    finished, flags = stopped
    after_it = "eval_steps" not in flags
    with monkeypatch.context() as patched:
        if after_it:
            patched.setattr(outcome, "predict_test", lambda trainer: fail())
        else:
            in_epoch(patched, 3, fail)
        assert run(good_corpus, encoder, tmp_path / "out", **flags).code == 130
    ended = run(good_corpus, encoder, tmp_path / "out", **flags)
    assert ended.code == 0, ended.stderr
    assert ("epoch 3:" in ended.stdout) != after_it
    check_same(tmp_path / "out", finished)
