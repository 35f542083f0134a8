"""The text-only baseline, on constructed corpora."""

import pytest
from datasets import Dataset

from ser_mtl.corpora.utterances import FEATURES
from ser_mtl.evaluation.predictions import references_and_predictions
from ser_mtl.tables.baselines import text_baseline

WORDS = {"angry": "leave me alone", "sad": "i miss her", "happy": "what a day"}


def corpus(rows: list[dict]) -> Dataset:
    empty = dict.fromkeys(FEATURES)
    return Dataset.from_list([empty | {"id": str(i)} | row for i, row in enumerate(rows)], features=FEATURES)


def test_informative_words_are_enough_and_others_are_chance():
    telling = [{"emotion": e, "text": f"[SIGH] {t.upper()}!", "fold": f} for f in (1, 2, 3) for e, t in WORDS.items()]
    references, predictions = references_and_predictions(text_baseline(corpus(telling)))
    assert [row["emotion"] for row in references] == [row["emotion"] for row in predictions]
    same = [row | {"text": "kids are talking by the door"} for row in telling]
    rows = text_baseline(corpus(same))
    assert len(rows) == 9
    for row in rows:
        assert list(row["emotion"]["probabilities"].values()) == pytest.approx([1 / 3] * 3)


def test_a_fold_is_never_learned_from_itself():
    # Only fold 1 has angry utterances, so no model of the other folds can know them.
    rows = [{"emotion": "angry", "text": "zounds", "fold": 1}] * 5
    rows += [{"emotion": e, "text": WORDS[e], "fold": 2} for e in ("sad", "happy")] * 3
    rows += [{"emotion": e, "text": WORDS[e], "fold": 3} for e in ("sad", "happy")] * 3
    predicted = text_baseline(corpus(rows))
    assert {row["emotion"]["predicted"] for row in predicted if row["emotion"]["label"] == "angry"} <= {"sad", "happy"}


def test_utterances_without_transcript_or_emotion_are_left_out():
    rows = [{"emotion": e, "text": t, "fold": f} for f in (1, 2) for e, t in WORDS.items()]
    rows += [{"emotion": "sad", "text": "[LAUGHTER]", "fold": 1}, {"emotion": None, "text": "well", "fold": 2}]
    assert len(text_baseline(corpus(rows))) == 6
    assert text_baseline(corpus([{"emotion": "sad", "fold": 1}])) == []
