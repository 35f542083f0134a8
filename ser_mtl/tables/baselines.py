"""Baselines to compare a model with: a text-only model, and human agreement.

The text-only baseline shows how well emotion is recognised without listening: well, if all speakers act the same
scripts. Human agreement (`ser_mtl.tables.agreement`) shows how well a listener agrees with other listeners.
"""

from pathlib import Path
from typing import Annotated

import numpy as np
from datasets import Dataset
from pydantic import Field
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from typing_extensions import TypedDict

from ser_mtl.corpora.utterances import normalise_text
from ser_mtl.evaluation.predictions import WithEmotion, prediction_rows
from ser_mtl.evaluation.results import Count, Share
from ser_mtl.files import write_json
from ser_mtl.tables.agreement import human_ceiling


class Rated(TypedDict):
    """An utterance with raters."""

    label: str
    right: Annotated[list[list[str]], Field(min_length=1)]
    rater: Share


class Ceiling(TypedDict):
    """Human agreement."""

    ua: Share
    wa: Share
    raters: Count
    tied: Share
    wa_of_label: Share
    utterances: dict[str, Rated]


class Baselines(TypedDict):
    """The content of `baselines.json`."""

    text_only: list[WithEmotion]
    ceiling: Ceiling | None


def write_baselines(path: str | Path, corpus: Dataset) -> None:
    """Write both baselines to `path`: `{"text_only": prediction rows, "ceiling": human agreement or null}`."""
    write_json(path, {"text_only": text_baseline(corpus), "ceiling": human_ceiling(corpus)})


def text_baseline(corpus: Dataset) -> list[dict]:
    """Recognise emotion from a bag of words of the annotated transcripts, each fold predicted by a model of the others.

    Logistic regression on the presence of words and word pairs, with classes weighted equally and nothing tuned.

    Returns:
        Rows as in `predictions.jsonl`, of all utterances with an emotion and a transcript; empty if there are too few
        transcripts to learn from.
    """
    spoken = [normalise_text(text or "") for text in corpus["text"]]
    chosen = [row for row, emotion in enumerate(corpus["emotion"]) if emotion and spoken[row]]
    columns = spoken, corpus["emotion"], [fold or 0 for fold in corpus["fold"]]  # 0: in no test set
    texts, emotions, folds = (np.array([column[row] for row in chosen]) for column in columns)
    rows: list[dict] = []
    for fold in sorted(set(folds.tolist()) - {0}):
        train, test = folds != fold, folds == fold
        if len(set(emotions[train])) < 2:
            continue
        model = make_pipeline(
            CountVectorizer(ngram_range=(1, 2), binary=True, token_pattern=r"\S+"),
            LogisticRegression(class_weight="balanced", max_iter=2000),
        ).fit(texts[train], emotions[train])
        utterances = corpus.select(np.array(chosen)[test])
        labels = {"emotion": model.classes_.tolist()}
        rows += prediction_rows(utterances, labels, {"emotion": model.predict_proba(texts[test])})
    return rows
