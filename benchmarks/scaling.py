"""CPU seconds of a run and a report apart from audio and model, by the number of utterances.

python benchmarks/scaling.py --utterances 1000 10000 100000
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import datasets
import numpy as np
import soundfile
from datasets import Dataset, DatasetDict

from benchmarks.workload import EMOTIONS
from ser_mtl.corpora import load_corpus
from ser_mtl.corpora.folds import split
from ser_mtl.corpora.leaks import find_leaks
from ser_mtl.corpora.split_record import hash_of_annotations, split_record
from ser_mtl.corpora.targets import character_tokenizer, check_annotated, classes_table, label_sets, with_targets
from ser_mtl.evaluation.calibration import calibration
from ser_mtl.evaluation.embeddings import two_dimensions
from ser_mtl.evaluation.intervals import counts, interval
from ser_mtl.evaluation.metric_intervals import metric_intervals
from ser_mtl.evaluation.predictions import (
    prediction_rows,
    read_predictions,
    references_and_predictions,
    write_predictions,
)
from ser_mtl.evaluation.scores import SerMtlMetric, metrics_by_group

TASKS = ["emotion", "gender", "style"]
WORDS = 20_000


def transcripts(utterances: int) -> list[str]:
    """Transcripts of ten words in the mean, with word frequencies by Zipf's law."""
    random = np.random.default_rng(0)
    chances = 1 / np.arange(1, WORDS + 1)
    lengths = np.clip(random.gamma(2, 5, utterances).astype(int), 1, 60)
    words = random.choice(WORDS, lengths.sum(), p=chances / chances.sum())
    return [" ".join(f"w{word}" for word in some) for some in np.split(words, lengths.cumsum()[:-1])]


def table_of(utterances: int, file: Path) -> Dataset:
    """A corpus of one file's utterances, a hundred per speaker."""
    numbers = np.arange(utterances)
    speakers = numbers % max(10, utterances // 100)
    return Dataset.from_dict(
        {
            "id": [f"u{number:06d}" for number in numbers],
            "path": [str(file)] * utterances,
            "speaker": [f"speaker {number}" for number in speakers],
            "gender": [("female", "male")[number % 2] for number in speakers],
            "style": [("improvised", "scripted")[number // 8 % 2] for number in numbers],
            "emotion": [EMOTIONS[number * 7 % 4] for number in numbers],
            "text": transcripts(utterances),
        }
    )


def labels_checked(corpus: Dataset, parts: DatasetDict) -> dict[str, list[str]]:
    """The labels, checks, targets and records of a run."""
    labels = label_sets(corpus, TASKS)
    check_annotated(parts, TASKS)
    classes_table(parts, TASKS)
    with_targets(corpus, labels, character_tokenizer(corpus["text"]))
    split_record(parts, 1, "dialog")
    hash_of_annotations(corpus)
    return labels


def scored(rows: list[dict], labels: dict[str, list[str]]) -> None:
    """Compute the metrics of predictions, with intervals and calibration."""
    references, predictions = references_and_predictions(rows)
    metrics_by_group(SerMtlMetric(labels), predictions, references)
    metric_intervals(references, predictions, [row["speaker"] for row in rows])
    calibration(rows, rows)


def steps(utterances: int, folder: Path) -> dict[str, float]:
    """CPU seconds of each step."""
    seconds: dict[str, float] = {}

    def timed(step: str, work: Callable[[], Any]) -> Any:
        begun = time.process_time()
        result = work()
        seconds[step] = time.process_time() - begun
        return result

    table = table_of(utterances, folder / "a.wav")
    corpus = timed("read, speakers dealt into folds", lambda: load_corpus(table))
    parts = timed("split, speakers and dialogs compared", lambda: split(corpus, 1))
    timed("near-duplicates of the test set in train", lambda: find_leaks(parts))
    labels = timed("labels, checks, targets, records", lambda: labels_checked(corpus, parts))
    random, test = np.random.default_rng(0), parts["test"]
    scores = {task: random.dirichlet(np.ones(len(labels[task])), len(test)) for task in TASKS}
    points = two_dimensions({task: random.normal(size=(len(test), 256)) for task in TASKS})
    made = (test, labels, scores, [text or "" for text in test["text"]])
    rows = timed("prediction rows of the test set", lambda: prediction_rows(*made, points=points))
    timed("written and read", lambda: [write_predictions(folder / "p", rows), read_predictions(folder / "p")])
    timed("metrics, intervals, calibration", lambda: scored(rows, labels))
    timed("a report's interval of UA over speakers", lambda: interval(counts([rows, rows])))
    return seconds


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--utterances", type=int, nargs="+", default=[1000, 10_000, 100_000])
    args = parser.parse_args()
    datasets.disable_progress_bars()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        soundfile.write(folder / "a.wav", np.zeros(800), 16_000)
        found = [steps(utterances, folder) for utterances in args.utterances]
    print("| CPU seconds for utterances |", " | ".join(f"{utterances:,}" for utterances in args.utterances), "|")
    print("|---" * (len(found) + 1) + "|")
    for step in found[0]:
        print(f"| {step} |", " | ".join(f"{one[step]:.2f}" for one in found), "|")


if __name__ == "__main__":
    main()
