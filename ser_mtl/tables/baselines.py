"""Baselines to compare a model with: a text-only model, and human agreement.

The text-only baseline shows how much can be answered without listening: a lot, if all speakers act the same scripts.
Human agreement shows how well a listener agrees with other listeners.
"""

from collections import Counter
from pathlib import Path

import numpy as np
from datasets import Dataset
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from ser_mtl.corpora.raters import outside_votes
from ser_mtl.corpora.utterances import normalise_text
from ser_mtl.evaluation.predictions import prediction_rows
from ser_mtl.files import write_json


def write_baselines(path: str | Path, corpus: Dataset) -> None:
    """Write both baselines to `path`: `{"text_only": prediction rows, "ceiling": scores or null}`."""
    write_json(path, {"text_only": text_baseline(corpus), "ceiling": human_ceiling(corpus)})


def text_baseline(corpus: Dataset) -> list[dict]:
    """Recognise emotion from a bag of words of the annotated transcripts, each fold predicted by a model of the others.

    Logistic regression on the words and word pairs that occur, classes weighted equally, nothing tuned.

    Returns:
        Rows as in `predictions.jsonl`, of all utterances with an emotion and a transcript; none if there are too
        few transcripts to learn from.
    """
    spoken = [normalise_text(text or "") for text in corpus["text"]]
    chosen = [row for row, emotion in enumerate(corpus["emotion"]) if emotion and spoken[row]]
    texts, emotions, folds = (np.array([column[row] for row in chosen]) for column in
                              (spoken, corpus["emotion"], corpus["fold"]))  # fmt: skip
    rows: list[dict] = []
    for fold in np.unique(folds):
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


def human_ceiling(corpus: Dataset) -> dict[str, float] | None:
    """Score a random outside rater of each utterance against the consensus of its other outside raters.

    Each rater of an utterance acts as the model in turn, and the others' most frequent category as the annotation. A
    rater who named several categories gets the expected score of one drawn at random. If the others' votes are tied, or
    their choice is none of the corpus's emotions, the rater is not scored.

    Returns:
        `ua` and `wa`; `raters`, the number of scored ratings; `tied`, the share that was not, because the others
        disagreed; `wa_of_label`, the agreement with the corpus's own label, in which the rater had a vote too. None if
        no utterance has three outside raters.
    """
    labels = sorted(set(corpus["emotion"]) - {None})
    truth, right, right_of_label, tied = [], [], [], 0
    for raters, label in zip(corpus["raters"], corpus["emotion"], strict=True):
        votes = outside_votes(raters or [])
        if label is None or len(votes) < 3:
            continue
        for rater, vote in enumerate(votes):
            right_of_label.append(vote.get(label, 0.0))
            consensus = _most_frequent(votes[:rater] + votes[rater + 1 :])
            tied += consensus is None
            if consensus in labels:
                truth.append(consensus)
                right.append(vote.get(consensus, 0.0))
    if not truth:
        return None
    recalls = [np.mean([r for r, t in zip(right, truth, strict=True) if t == label]) for label in sorted(set(truth))]
    return {
        "ua": float(np.mean(recalls)),
        "wa": float(np.mean(right)),
        "raters": len(truth),
        "tied": tied / len(right_of_label),
        "wa_of_label": float(np.mean(right_of_label)),
    }


def _most_frequent(votes: list[dict[str, float]]) -> str | None:
    """The category with the most votes; None if two tie."""
    total: Counter = Counter()
    for vote in votes:
        total.update(vote)
    (first, most), *rest = total.most_common(2)
    return None if rest and rest[0][1] == most else first
