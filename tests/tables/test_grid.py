"""A search over settings: all combinations, shared trainings, and a choice by the development set alone."""

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest
from helpers.finished_runs import write_runs
from helpers.tiny import check_one_line, run_script
from test_launch import tables_flags

from ser_mtl.errors import UserError
from ser_mtl.files import read_json, write_json
from ser_mtl.tables.arguments import idle_in, parse_arguments
from ser_mtl.tables.grid import cells, plan_grid, runs_in, write_grid
from ser_mtl.tables.plan import choose_rows

GRID = ["learning_rate=5e-5,1e-4", "scl_weight=0.5,1"]


def planned(folder: Path, rows: list[str], grid: list[str], folds: tuple[int, ...] = (1, 2)) -> dict:
    return plan_grid(choose_rows([], rows, []), folds, [0], folder, grid, idle_in)


def write_figures(by_cell: dict, dev: list[float], test: list[float]) -> None:
    """Finished runs of each setting with these figures of emotion's UA; the mean over folds is the figure."""
    for runs, of_dev, of_test in zip(by_cell.values(), dev, test, strict=True):
        write_runs(runs, {})
        for run, shift in zip(runs, (-0.1, 0.1), strict=True):
            results = read_json(run.folder / "results.json")
            results["dev"] = {"all": {"n": 4, "emotion": {"ua": of_dev + shift}}}
            results["test"]["all"]["emotion"]["ua"] = of_test + shift
            write_json(run.folder / "results.json", results)


def test_all_combinations_are_planned_and_each_training_once(tmp_path):
    grid = planned(tmp_path, ["t3-scl-cos", "t3-concat"], GRID)
    assert len(grid["t3-scl-cos"]) == 4 and len(grid["t3-concat"]) == 2  # no SCL, so no weight of it
    runs = runs_in(grid)
    names = [run.name for run in runs]
    # Two learning rates and two folds of the stage 1 that all share.
    assert [names.count(name) for name in ("t1-full-ser-asr", "t3-scl-cos", "t3-concat")] == [4, 8, 4]
    assert len({run.folder for run in runs}) == len(runs)
    seen = set()
    for run in runs:
        assert {one for _, one in run.starts} <= set(seen)
        seen.add(run)


IN_RUNS = ("--grid {}", "'--stage1_flags=--{}'", "'--row_flags=t3-scl-cos --{}'", "'--full_flags=--{}'")


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        *((flag.format("learning_rate=-1"), "--learning_rate -1") for flag in IN_RUNS),
        *((flag.format("neftune_noise_alpha=5"), "--neftune_noise_alpha 5") for flag in IN_RUNS),
        ("--grid lora_rank=8,x", "lora_rank"),
        ("--grid lora_rank=8,0", "--lora_rank 0"),
        ("--grid augment=noise,hiss", "hiss"),
        ("--grid lr_scheduler_type=linear,greedy head_start=0,0.1", "--head_start 0.1"),
        ("'--row_flags=t3-scl-cos --fp16'", "--fp16"),
        ("'--row_flags=t3-scl-cos --ddp_timeout 9'", "several processes"),
    ],
)
def test_what_a_run_would_refuse_is_refused_before_any_starts(tmp_path, monkeypatch, flags, named):
    monkeypatch.chdir(tmp_path)
    words = ["--rows", "t3-scl-cos", "--corpus", "demo", "--dry_run", *shlex.split(flags)]
    check_one_line(run_script("run_tables", words), "run_tables", named)
    assert not [*tmp_path.iterdir()]


def test_a_plan_does_not_wait_for_the_other_processes_of_its_launcher(tmp_path, python):
    """They have ended: one process plans for all."""
    words = ["--rows", "t1-full-ser", "--corpus", "folder", "--data_dir", "x", "--encoder", "y", "--dry_run"]
    others = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29512"}
    script = Path(__file__).parents[2] / "run_tables.py"
    ended = subprocess.run(
        [python, script, *words], cwd=tmp_path, env=os.environ | others, capture_output=True, timeout=60
    )
    assert ended.returncode == 0, ended.stderr.decode()


def test_what_depends_on_the_machine_is_left_to_runs_on_another(tmp_path):
    words = [
        "--corpus",
        "demo",
        "--launcher",
        "slurm",
        "--fp16",
        "--ddp_timeout",
        "9",
        "--output_dir",
        tmp_path / "out",
    ]
    assert run_script("run_tables", [*words, "--tables", "1", "4", "6", "--dry_run"]).code == 0


def test_a_run_gets_the_flags_of_its_setting_and_they_win(tmp_path):
    words = ["--rows", "t3-scl-cos", "--corpus", "demo", "--output_dir", str(tmp_path), "--learning_rate", "3e-4"]
    args = parse_arguments([*words, "--grid", *GRID])
    assert args.output_dir == tmp_path / "grid"
    for run in runs_in(planned(args.output_dir, ["t3-scl-cos"], GRID)):
        flags = args.flags_of(run)
        rates = [word for word in flags if word.startswith("--learning_rate=")]
        assert rates == [flags[-2] if run.stage == 2 else flags[-1]] and flags.index("--learning_rate") < len(flags) - 2
        assert any(word.startswith("--scl_weight=") for word in flags) == (run.stage == 2)
        for _, start in run.starts:
            assert str(start.folder) in flags and rates[0].removeprefix("--") in start.flags


def test_dev_chooses_and_no_other_test_figure_is_shown(tmp_path):
    grid = planned(tmp_path, ["t1-full-ser"], ["learning_rate=5e-5,1e-4,2e-4"])
    write_figures(grid["t1-full-ser"], dev=[0.5, 0.6, 0.55], test=[0.777, 0.432, 0.888])
    text = write_grid(tmp_path, grid, "python run_tables.py")
    assert text == (tmp_path / "grid.md").read_text()
    assert re.findall(r"learning_rate=(\S+) +(\S+)  2 of 2(.*)", text) == [
        ("5e-5", "50.0", ""), ("1e-4", "60.0", "  chosen"), ("2e-4", "55.0", ""),
    ]  # fmt: skip
    assert "Chosen: --learning_rate 1e-4; its test emotion UA is 43.2." in text
    assert "77.7" not in text and "88.8" not in text


def test_nothing_is_chosen_before_all_runs_are_finished(tmp_path):
    grid = planned(tmp_path, ["t1-full-ser"], ["learning_rate=5e-5,1e-4"])
    write_figures(grid["t1-full-ser"], dev=[0.5, 0.6], test=[0.777, 0.432])
    (grid["t1-full-ser"][("learning_rate=5e-5",)][0].folder / "results.json").unlink()
    text = write_grid(tmp_path, grid, "")
    assert "Nothing is chosen" in text and "1 of 2" in text and "43.2" not in text and "77.7" not in text


def test_a_run_without_a_figure_on_dev_is_named(tmp_path):
    grid = planned(tmp_path, ["t1-full-ser"], ["learning_rate=5e-5"])
    write_runs(runs_in(grid), {})
    with pytest.raises(UserError, match=r"results.json: has no emotion UA on dev"):
        write_grid(tmp_path, grid, "")


@pytest.mark.parametrize(
    "grid",
    [
        ["learning_rate"],
        ["learning_rate="],
        ["=1"],
        ["a=1,1"],
        ["a=1,"],
        ["a=1", "a=2"],
        ["--a=1", "a=2"],
        ["a=1e-4,0.0001"],
        ["a-b=1", "a_b=2"],
        [f"{flag}=1,2,3,4,5,6,7,8" for flag in "abcdefghijkl"],
    ],
)
def test_a_grid_that_makes_no_sense_is_refused(grid):
    with pytest.raises(UserError, match="--grid"):
        cells(grid)


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--grid", "no_such=1,2"], "--no_such"),
        (["--grid", "fold=1,2"], "--fold"),
        (["--grid", "hub_token=hf_a,hf_b"], "--grid hub_token"),
        (["--grid", "data_dir=a,b"], "--grid data_dir"),
        (["--grid", "dev=session,dialog"], "--grid dev"),
        (["--grid", "map=angry=sad,sad=angry"], "--grid map"),
        (["--grid", "metric-for-best-model=emotion_ua,emotion_wa"], "--grid metric_for_best_model"),
        (["--grid", "learning_rate=a"], "learning_rate"),
        (["--grid", "learning_rate=1e-4", "--dev", "none"], "--dev none"),
        (["--grid", "selection=oracle,dev", "--dev", "dialog"], "--selection oracle"),
        (["--grid", "learning_rate=1e-4", "--measure_oracle"], "--measure_oracle"),
    ],
)
def test_what_no_development_set_can_compare_is_refused(good_corpus, encoder, tmp_path, flags, named):
    words = tables_flags(good_corpus, encoder, tmp_path / "out", "--rows", "t3-scl-cos", *flags)
    check_one_line(run_script("run_tables", words), "run_tables", named)
    assert not (tmp_path / "out").exists()
