"""The text-only baseline and human agreement, on constructed corpora."""

import pytest
from datasets import Dataset

from ser_mtl.corpora.utterances import FEATURES
from ser_mtl.evaluation.predictions import references_and_predictions
from ser_mtl.tables.baselines import human_ceiling, text_baseline

WORDS = {"angry": "leave me alone", "sad": "i miss her", "happy": "what a day"}


def corpus(rows: list[dict]) -> Dataset:
    empty = dict.fromkeys(FEATURES)
    return Dataset.from_list([empty | {"id": str(i)} | row for i, row in enumerate(rows)], features=FEATURES)


def raters(*answers: str | list[str], names: str = "C-E{}") -> list[dict]:
    empty = {"comment": None, "valence": None, "activation": None, "dominance": None}
    return [
        {"rater": names.format(i), "categories": [answer] if isinstance(answer, str) else answer} | empty
        for i, answer in enumerate(answers)
    ]


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


def test_the_ceiling_by_hand():
    agreement = human_ceiling(
        corpus(
            [
                # All agree: three of three.
                {"emotion": "angry", "raters": raters("Anger", "Anger", "Anger")},
                # The odd one is wrong; for the other two the rest is tied (happy and neutral), so they are not scored.
                {"emotion": "happy", "raters": raters("Excited", "Happiness", "Neutral")},
                # Against the first two (sad), frustration is wrong; two are tied.
                {"emotion": "sad", "raters": raters("Sadness", "Sadness", "Frustration")},
            ]
        )
    )
    # Scored: 3 angry (right), 1 happy (wrong), 1 sad (wrong).
    assert agreement["raters"] == 5
    assert agreement["wa"] == pytest.approx(3 / 5)
    assert agreement["ua"] == pytest.approx((1 + 0 + 0) / 3)
    assert agreement["tied"] == pytest.approx(4 / 9)
    assert agreement["wa_of_label"] == pytest.approx(7 / 9)


def test_a_rater_with_two_answers_is_half_right():
    rows = [{"emotion": "sad", "raters": raters("Sadness", "Sadness", ["Sadness", "Frustration"])}]
    agreement = human_ceiling(corpus(rows))
    # The two plain ones are right against 1.5 : 0.5; the third is half right.
    assert agreement["wa"] == pytest.approx(2.5 / 3)


def test_a_consensus_outside_the_corpus_scores_nobody():
    rows = [
        {"emotion": "sad", "raters": raters("Frustration", "Frustration", "Sadness")},
        {"emotion": "sad", "raters": raters("Sadness", "Sadness", "Sadness")},
    ]
    assert human_ceiling(corpus(rows))["raters"] == 3


def test_actors_and_raters_of_attributes_do_not_count():
    own = raters("Sadness", "Sadness", names="C-F{}") + raters([], [], names="A-E{}")
    assert human_ceiling(corpus([{"emotion": "sad", "raters": raters("Sadness", "Sadness") + own}])) is None


def test_without_raters_there_is_no_ceiling():
    assert human_ceiling(corpus([{"emotion": "sad"}])) is None
