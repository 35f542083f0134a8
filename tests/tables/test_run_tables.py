"""The command line of run_tables.py: a plan, a row trained and reported, no run trained twice, mistakes in one line."""

import json
import os
from pathlib import Path

import pandas as pd
import pytest
from helpers.tiny import check_one_line, run_script, write_corpus
from test_launch import tables_flags

from ser_mtl.errors import UserError
from ser_mtl.tables import launch as launching
from ser_mtl.tables.arguments import keep_settings, parse_arguments
from ser_mtl.tables.plan import choose_rows, plan

TOKEN = "hf_made_up_of_ada"


def flags(corpus: Path, encoder: Path, output: Path, *more: str) -> list[str]:
    return tables_flags(corpus, encoder, output, "--num_train_epochs", "2", "--rows", "t1-full-ser", *more)


@pytest.fixture(scope="module")
def trained(good_corpus, encoder, python, tmp_path_factory) -> tuple[Path, str]:
    output = tmp_path_factory.mktemp("run_tables") / "tables"
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(launching, "_LAUNCH", (python, *launching._LAUNCH[1:]))
        ended = run_script("run_tables", flags(good_corpus, encoder, output, "--measure_oracle"))
    assert ended.code == 0, ended.stderr
    return output, ended.stdout


def test_help_shows_each_flag_with_its_default(monkeypatch):
    monkeypatch.setenv("COLUMNS", "122")
    ended = run_script("run_tables", ["--help"])
    assert ended.code == 0 and max(map(len, ended.stdout.splitlines())) <= 120
    for shown in ("--folds N ...", "[1 2 3 4 5]", "[1 2 3, without", "[iemocap]", "--dry_run  "):
        assert shown in ended.stdout
    assert "[]" not in ended.stdout and "default:" not in ended.stdout


def test_a_dry_run_prints_the_plan_and_leaves_nothing(good_corpus, encoder, tmp_path):
    ended = run_script("run_tables", flags(good_corpus, encoder, tmp_path / "out", "--tables", "3", "--dry_run"))
    assert "6 runs, 0 finished, 6 to do" in ended.stdout
    assert not (tmp_path / "out").exists()


def test_a_row_is_trained_and_reported(trained, good_corpus):
    output, printed = trained
    results = json.loads((output / "seed0/fold1/t1-full-ser/results.json").read_text())
    assert (results["tasks"], results["trainable"], results["seed"], results["fold"]) == (["emotion"], "all", 0, 1)
    text = (output / "report.md").read_text()
    assert (
        f"| `t1-full-ser` | all parameters: SER | {100 * results['test']['all']['emotion']['ua']:.1f} | 70.88 |" in text
    )
    assert "oracle over last" in text and "bag of words" in text
    assert str(output / "report.html") in printed and "1 run, 1 finished, 0 to do" in printed
    assert str(good_corpus) not in text


def test_a_repeat_trains_nothing_and_other_settings_are_refused(trained, good_corpus, encoder):
    output, _ = trained
    run = output / "seed0/fold1/t1-full-ser"
    before = {path.name: path.stat().st_mtime_ns for path in [*run.iterdir(), run.with_suffix(".log")]}
    assert run_script("run_tables", flags(good_corpus, encoder, output, "--measure_oracle")).code == 0
    refused = run_script("run_tables", flags(good_corpus, encoder, output))
    check_one_line(refused, "run_tables", "--measure_oracle True, not False", output)
    assert before == {path.name: path.stat().st_mtime_ns for path in [*run.iterdir(), run.with_suffix(".log")]}


@pytest.mark.parametrize("form", [["--hub_token", TOKEN], ["--hub-token", TOKEN], [f"--hub_token={TOKEN}"]], ids=str)
def test_a_token_reaches_the_runs_and_is_written_nowhere(good_corpus, encoder, tmp_path, form, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_nobody")
    monkeypatch.setattr("sys.argv", ["run_tables.py"])
    args = parse_arguments([*map(str, flags(good_corpus, encoder, tmp_path)), *form, "--push_to_hub"])
    keep_settings(args)
    runs = plan(choose_rows([], ["t2-full-full"], []), [1], [0], tmp_path)
    assert os.environ["HF_TOKEN"] == TOKEN
    assert TOKEN not in " ".join([args.command, *(word for run in runs for word in args.flags_of(run))]) + repr(args)
    assert "--push_to_hub" in args.command and "--push_to_hub" in args.flags_of(runs[0])
    assert TOKEN not in (tmp_path / "settings.json").read_text()
    (runs[0].folder / "args.json").parent.mkdir(parents=True)
    (runs[0].folder / "args.json").write_text("{}")
    before = json.loads((tmp_path / "settings.json").read_text())
    for flag, value in (("flags", [*before["flags"], *form]), ("encoder", "another")):
        (tmp_path / "settings.json").write_text(json.dumps(before | {flag: value, "flags": [*before["flags"], *form]}))
        if flag == "flags":
            keep_settings(args)
    with pytest.raises(UserError, match="--encoder another, not") as stop:
        keep_settings(args)
    assert TOKEN not in str(stop.value)


@pytest.mark.parametrize("flag", ["stage1_flags", "stage2_flags", "adapters_flags", "full_flags", "row_flags"])
def test_a_token_among_flags_that_are_kept_is_refused_unseen(good_corpus, encoder, tmp_path, flag):
    text = f"t1-full-ser --hub_token {TOKEN}" if flag == "row_flags" else f"--hub-token={TOKEN}"
    ended = run_script("run_tables", flags(good_corpus, encoder, tmp_path / "out", f"--{flag}={text}"))
    check_one_line(ended, "run_tables", f"--{flag}", "HF_TOKEN")
    assert TOKEN not in ended.stderr and not (tmp_path / "out").exists()


def test_a_missing_corpus_is_named_before_anything_is_launched(encoder, tmp_path):
    ended = run_script("run_tables", flags(tmp_path / "nowhere", encoder, tmp_path / "out"))
    check_one_line(ended, "run_tables", "--data_dir", "nowhere")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("rows", "more", "named"),
    [
        ("t1-full-ser-asr", [], "--leave_out asr"),
        ("t1-full-ser", ["--folds", "1", "5"], "--folds 5: the corpus has no such test set; use --folds 1 2 3 4"),
    ],
)
def test_what_the_corpus_lacks_is_named_before_anything_is_launched(encoder, tmp_path, rows, more, named):
    folder = write_corpus(tmp_path / "mine", leave_out=["text"])
    table = pd.read_csv(folder / "metadata.csv").query("speaker in ['f1', 'f2', 'm3', 'm4']")
    table.to_csv(folder / "metadata.csv", index=False)
    words = tables_flags(folder, encoder, tmp_path / "out", "--rows", rows, *more)
    check_one_line(run_script("run_tables", words), "run_tables", named)
