"""Pins how labels and names are read: empty words, Unicode forms, spellings of one label, names of one person."""

import pytest
from datasets import Dataset, DatasetDict

from ser_mtl.corpora.names import cleaned, one_name_each, spelling, spellings
from ser_mtl.corpora.targets import classes_table, label_sets
from ser_mtl.corpora.utterances import FEATURES
from ser_mtl.errors import Notice, UserError


def corpus_of(*emotions: str | None) -> Dataset:
    rows = [{"id": f"{n}.wav", "emotion": emotion} for n, emotion in enumerate(emotions)]
    return Dataset.from_list([dict.fromkeys(FEATURES) | row for row in rows], features=FEATURES)


@pytest.mark.parametrize("cell", ["", "  ", "nan", "NaN", "None", "NA", "N/A", "#N/A", "<NA>", "null", "NULL", None])
def test_words_for_nothing_are_empty(cell):
    assert cleaned(cell) is None


@pytest.mark.parametrize("cell", ["sad", "neutral", "no", "0", "-", "?", "+", "nana", "unknown"])
def test_other_words_are_labels(cell):
    assert cleaned(cell) == cell


def test_unicode_forms_and_spaces_do_not_make_a_label():
    assert cleaned("fa\u0302che\u0301 ") == cleaned("f\u00e2ch\u00e9") == "f\u00e2ch\u00e9"
    assert cleaned(" very\u00a0 sad ") == "very sad"


@pytest.mark.parametrize(
    "names",
    [
        ("Happy", "happy"),
        ("fear ful", "fearful"),
        ("low-arousal", "Low_Arousal"),
        ("happy.", "happy"),
        ("1", "1.0"),
        ("10", "1.0e+01"),
        ("level-1", "level 1"),
        ("\ufeffsad", "sad"),
        ("STRASSE", "stra\u00dfe"),
    ],
)
def test_spellings_of_one_word_are_found(names):
    assert spellings([*names, "neutral"]) == [sorted(names)]


@pytest.mark.parametrize(
    "names", [("sad", "mad"), ("1", "-1"), ("1", "10"), ("+", "-"), ("1-2", "12"), ("c", "c+"), ("a.b", "ab")]
)
def test_different_words_are_not_spellings_of_one(names):
    assert spelling(names[0]) != spelling(names[1])


def test_a_second_spelling_stops_with_the_more_frequent_one():
    with pytest.raises(UserError, match=r"'emotion': 'Happy', 'happy' .* did you mean 'happy'\? .*1\.wav"):
        label_sets(corpus_of("happy", "Happy", "happy", "sad", None), ["emotion"])


@pytest.mark.parametrize(("label", "remedy"), [("1.0", "did you mean '1'"), ("2.5", "whole numbers"), ("2,5", "whole")])
def test_a_number_with_decimals_is_no_class(label, remedy):
    with pytest.raises(UserError, match=rf"'emotion': '{label}' \(such as 0\.wav\) .*decimals.*{remedy}"):
        label_sets(corpus_of(label, "3"), ["emotion"])


def test_whole_numbers_are_classes():
    assert label_sets(corpus_of("1", "2", "-1"), ["emotion"]) == {"emotion": ["-1", "1", "2"]}


def test_a_person_has_the_name_that_is_written_most_often():
    rows = [{"speaker": name} for name in ("Zo\u00eb", "ACTOR01", "actor01", "zoe\u0308", "Actor 01", "actor01", None)]
    with pytest.warns(Notice) as caught:
        one_name_each(rows)
    assert [row["speaker"] for row in rows] == [
        rows[0]["speaker"],
        *["actor01"] * 2,
        "Zo\u00eb",
        *["actor01"] * 2,
        None,
    ]
    assert [str(one.message) for one in caught] == [
        "2 speakers have several spellings (such as 'Zo\u00eb', 'zoe\u0308'): each is one person"
    ]


def test_classes_are_counted_by_split_and_one_without_training_is_named():
    splits = DatasetDict(train=corpus_of("sad", "sad", None), dev=corpus_of("sad"), test=corpus_of("angry", "sad"))
    lines = classes_table(splits, ["emotion", "asr"]).splitlines()
    assert [line.split() for line in lines[:4]] == [
        ["train", "dev", "test"],
        ["emotion", "angry", "0", "0", "1"],
        ["emotion", "sad", "2", "1", "1"],
        ["emotion", "(none)", "1", "0", "0"],
    ]
    assert lines[4:] == ["Warning: emotion 'angry' has no utterance in train: the model cannot learn it"]
