"""Human agreement, on constructed corpora: raters and models are scored against the same references."""

import numpy as np
import pytest
from datasets import Dataset

from ser_mtl.corpora.utterances import FEATURES
from ser_mtl.tables.agreement import human_ceiling, model_scores

CATEGORIES = {"Anger": "angry", "Excited": "happy", "Neutral": "neutral", "Sadness": "sad"}


def corpus(rows: list[dict]) -> Dataset:
    empty = dict.fromkeys(FEATURES)
    return Dataset.from_list([empty | {"id": str(i)} | row for i, row in enumerate(rows)], features=FEATURES)


def raters(*answers: str | list[str], names: str = "C-E{}") -> list[dict]:
    empty = {"comment": None, "valence": None, "activation": None, "dominance": None}
    return [
        {"rater": names.format(i), "categories": [answer] if isinstance(answer, str) else answer} | empty
        for i, answer in enumerate(answers)
    ]


def with_votes(votes: np.ndarray) -> Dataset:
    """An utterance for each row of three categories; its label is the majority, and there is none without one."""
    rows = []
    for answers in votes:
        names, numbers = np.unique(answers, return_counts=True)
        label = CATEGORIES[str(names[numbers.argmax()])] if numbers.max() > 1 else None
        rows.append({"emotion": label, "raters": raters(*map(str, answers))})
    return corpus(rows)


def test_a_rater_who_agrees_with_80_percent_of_the_labels_reads_80():
    # 40 % of the utterances are unanimous, 60 % have two votes against one: 0.4 + 0.6 x 2 / 3.
    random = np.random.default_rng(0)
    votes = np.array([random.permutation(list(CATEGORIES))[[0, 0, 0 if row < 200 else 1]] for row in range(500)])
    found = human_ceiling(with_votes(random.permuted(votes, axis=1)))
    assert (found["wa"], found["wa_of_label"]) == pytest.approx((0.8, 0.8))
    assert found["ua"] == pytest.approx(0.8, abs=0.02)
    assert found["raters"] == 1500 and found["tied"] == pytest.approx(0.4)


def test_a_model_that_answers_as_a_fourth_rater_reads_as_a_rater():
    # Two categories, so that every utterance has a label. Against the label the model would read 0.61.
    random = np.random.default_rng(0)
    votes = np.where(random.random((6000, 4)) < 0.7, "Anger", "Sadness")
    found = human_ceiling(with_votes(votes[:, :3]))
    answers = [(str(i), CATEGORIES[str(answer)]) for i, answer in enumerate(votes[:, 3])]
    assert model_scores(found["utterances"], answers) == pytest.approx((found["ua"], found["wa"]), abs=0.02)
    of_label = np.mean([answer == found["utterances"][name]["label"] for name, answer in answers])
    assert of_label < found["wa"] - 0.1


def test_the_answers_of_several_seeds_count_once():
    utterances = {
        "a": {"label": "sad", "right": [["sad"], ["angry", "sad"]], "rater": 0.5},
        "b": {"label": "sad", "right": [["sad"]], "rater": 1.0},
        "c": {"label": "angry", "right": [["angry"]], "rater": 1.0},
    }
    answers = [("a", "sad"), ("a", "angry"), ("b", "sad"), ("c", "sad")]
    assert model_scores(utterances, answers) == pytest.approx(((0.75 + 1) / 2 / 2, (0.75 + 1 + 0) / 3))


def test_the_ceiling_by_hand():
    agreement = human_ceiling(
        corpus(
            [
                # All agree: three of three.
                {"emotion": "angry", "raters": raters("Anger", "Anger", "Anger")},
                # The odd one is wrong; for the other two the rest is tied (happy and angry), and both are right.
                {"emotion": "happy", "raters": raters("Excited", "Happiness", "Anger")},
                # Frustration is wrong; for the other two the rest is tied, but no model can say frustration.
                {"emotion": "sad", "raters": raters("Sadness", "Sadness", "Frustration")},
            ]
        )
    )
    assert agreement["raters"] == 9
    for name in ("wa", "ua", "wa_of_label"):
        assert agreement[name] == pytest.approx((1 + 2 / 3 + 2 / 3) / 3)
    assert agreement["tied"] == pytest.approx(2 / 9)
    assert agreement["utterances"]["1"] == {
        "label": "happy", "right": [["angry", "happy"], ["angry", "happy"], ["happy"]],
        "rater": pytest.approx(2 / 3),
    }  # fmt: skip


def test_a_rater_with_two_answers_is_half_right():
    rows = [{"emotion": "sad", "raters": raters("Sadness", "Sadness", ["Sadness", "Frustration"])}]
    agreement = human_ceiling(corpus(rows))
    # The two plain ones are right against 1.5 : 0.5, the third is half right.
    assert agreement["wa"] == pytest.approx(2.5 / 3)


def test_a_rating_for_which_no_emotion_of_the_corpus_is_right_is_left_out():
    rows = [
        {"emotion": "sad", "raters": raters("Frustration", "Frustration", "Sadness")},
        {"emotion": "sad", "raters": raters("Sadness", "Sadness", "Sadness")},
    ]
    found = human_ceiling(corpus(rows))
    assert found["raters"] == 5 and found["wa"] == pytest.approx((0 + 1) / 2)


def test_actors_and_raters_of_attributes_do_not_count():
    own = raters("Sadness", "Sadness", names="C-F{}") + raters([], [], names="A-E{}")
    assert human_ceiling(corpus([{"emotion": "sad", "raters": raters("Sadness", "Sadness") + own}])) is None


def test_without_raters_there_is_no_ceiling():
    assert human_ceiling(corpus([{"emotion": "sad"}])) is None
