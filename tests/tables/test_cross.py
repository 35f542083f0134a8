"""Train corpus against test corpus: each cell is the UA or CCC of its predictions, folds are put together."""

from pathlib import Path

import numpy as np
import pytest
from helpers.finished_runs import LABELS, prediction_rows, write_runs
from helpers.tiny import check_one_line, run_script
from scipy import stats

from ser_mtl.cross.evaluate import scores_of
from ser_mtl.evaluation.intervals import counts, interval, with_ends
from ser_mtl.evaluation.predictions import read_predictions, write_predictions
from ser_mtl.evaluation.scores import ccc
from ser_mtl.files import write_json
from ser_mtl.tables.plan import Run, choose_rows, plan


@pytest.fixture
def runs(tmp_path) -> list[Run]:
    """Two finished folds of one row, trained on "iemocap"."""
    planned = plan(choose_rows([], ["t1-full-ser"], []), [1, 2], [0], tmp_path / "runs")
    write_runs(planned, {})
    return planned


def evaluation(folder: Path, run: Run, corpus: str, stage: int = 1) -> Path:
    rows = prediction_rows(run, 0.4)
    labels = {"emotion": LABELS["emotion"]}
    system = {"trained_on": "iemocap", "stage": stage, "tasks": ["emotion"], "trainable": "all", "fold": run.fold}
    system["encoder"] = "facebook/wav2vec2-xls-r-300m"
    about = {"model": "x", "system": system, "corpus": corpus, "part": "all", "map": [], "left_out": []}
    more = {"checked": True, "labels": labels, "commit": None, "versions": {}}
    write_predictions(folder / "predictions.jsonl", rows)
    write_json(folder / "results.json", about | more | scores_of(rows, labels))
    return folder


def test_a_cell_is_the_ua_of_its_predictions_and_folds_are_put_together(runs, tmp_path):
    tested = [evaluation(tmp_path / f"on{run.fold}", run, "other | one") for run in runs]
    folders = [*(run.folder for run in runs), *tested]
    ended = run_script("run_tables", ["--cross", *folders, "--output_dir", tmp_path / "cross"])
    assert ended.code == 0, ended.stderr
    own, there = (
        with_ends(interval(counts([read_predictions(folder / "predictions.jsonl") for folder in some])))
        for some in (folders[:2], tested)
    )
    text = (tmp_path / "cross/cross.md").read_text()
    assert f"| iemocap | **{own}** | {there} |" in text and f"| iemocap | **{own}** | {there} |" in ended.stdout
    assert "other \\| one" in text and (tmp_path / "cross/cross.png").is_file()


def test_systems_that_differ_have_rows_of_their_own(runs, tmp_path):
    first, second = runs
    folders = [evaluation(tmp_path / "a", first, "other"), evaluation(tmp_path / "b", second, "third", stage=2)]
    ended = run_script("run_tables", ["--cross", *folders, "--output_dir", tmp_path / "cross"])
    assert "| iemocap, stage 1 |" in ended.stdout and "| iemocap, stage 2 | - |" in ended.stdout


def test_a_folder_that_is_neither_is_one_line(tmp_path):
    check_one_line(run_script("run_tables", ["--cross", tmp_path]), "run_tables", tmp_path, "results.json")


def test_a_folder_counts_once_and_other_classes_are_another_system(runs, tmp_path):
    first, second = (evaluation(tmp_path / name, run, "other") for name, run in zip("ab", runs, strict=True))
    (tmp_path / "link").symlink_to(first)
    ended = run_script("run_tables", ["--cross", first, tmp_path / "link", "--output_dir", tmp_path / "cross"])
    check_one_line(ended, "run_tables", f"--cross {tmp_path / 'link'}", "named twice")
    renamed = (second / "predictions.jsonl").read_text().replace('"angry"', '"calm"')
    (second / "predictions.jsonl").write_text(renamed)
    ended = run_script("run_tables", ["--cross", first, second, "--output_dir", tmp_path / "cross"])
    assert "| iemocap, classes angry," in ended.stdout and "| iemocap, classes calm," in ended.stdout
    ended = run_script("run_tables", ["--cross", first, "--grid", "learning_rate=1"])
    check_one_line(ended, "run_tables", "--grid")


def with_values(folder: Path, seed: int) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Give each utterance of a folder a valence, but for every fifth, which has no label; what is compared."""
    rows = read_predictions(folder / "predictions.jsonl")
    random = np.random.default_rng(seed)
    for number, row in enumerate(rows):
        truth = random.uniform(1, 5)
        row["valence"] = {"label": truth if number % 5 else None, "predicted": truth + random.normal()}
    write_predictions(folder / "predictions.jsonl", rows)
    pairs = [tuple(row["valence"].values()) for row in rows if row["valence"]["label"] is not None]
    return *np.array(pairs).T, [row["speaker"] for row in rows if row["valence"]["label"] is not None]


def test_a_value_has_a_matrix_of_its_ccc(runs, tmp_path):
    tested = [evaluation(tmp_path / f"on{run.fold}", run, "other") for run in runs]
    parts = [with_values(folder, seed) for seed, folder in enumerate(tested)]
    ended = run_script(
        "run_tables", ["--cross", *(run.folder for run in runs), *tested, "--output_dir", tmp_path / "x"]
    )
    assert ended.code == 0, ended.stderr
    y, x = (np.concatenate([part[column] for part in parts]) for column in (0, 1))
    speakers = np.array([speaker for part in parts for speaker in part[2]])
    without = np.array([ccc(y[speakers != one], x[speakers != one]) for one in sorted(set(speakers))])
    reach = stats.t.ppf(0.975, len(without) - 1) * np.sqrt((len(without) - 1) * without.var())
    cell = f"{100 * ccc(y, x):.1f} ({100 * (ccc(y, x) - reach):.1f} to {100 * min(1, ccc(y, x) + reach):.1f})"
    text = (tmp_path / "x/cross.md").read_text()
    assert f"| iemocap | {cell} |" in text.split("## Valence CCC")[1] and cell in ended.stdout
    assert f"| iemocap, other | 2 | {len(y)} | 4 | {cell} |" in text
    assert (tmp_path / "x/cross-valence.png").is_file() and (tmp_path / "x/cross.png").is_file()


def test_a_system_of_values_alone_is_compared_and_seeds_count_once(runs, tmp_path):
    first, second = (evaluation(tmp_path / name, runs[0], "other") for name in "ab")
    once = with_values(first, 3)
    (second / "predictions.jsonl").write_bytes((first / "predictions.jsonl").read_bytes())
    for folder in (first, second):
        rows = [row | {"emotion": None} for row in read_predictions(folder / "predictions.jsonl")]
        write_predictions(folder / "predictions.jsonl", rows)
    kept = [row for row in rows if row["valence"]["label"] is not None][::3]  # the second seed predicts a third
    for row in kept:
        row["valence"]["predicted"] += 1
    write_predictions(second / "predictions.jsonl", kept)
    ended = run_script("run_tables", ["--cross", first, second, "--output_dir", tmp_path / "x"])
    assert ended.code == 0, ended.stderr
    twice = np.arange(len(once[0])) % 3 > 0  # what one seed predicted has the weight of two predictions
    y, x = (np.concatenate([values, values[twice], values[~twice]]) for values in once[:2])
    x[-len(kept) :] += 1
    text = (tmp_path / "x/cross.md").read_text()
    assert f"| iemocap, other | 2 | {len(once[0])} | 2 | {100 * ccc(y, x):.1f} (" in text and "Emotion UA" not in text
