"""Pins how labels and names are read: empty words, Unicode forms, spellings of one label, names of one person."""

import pytest
from datasets import Dataset, DatasetDict

from ser_mtl.corpora.names import EMPTY, NOBODY, alike_people, clean, cleaned, one_name_each, spelling, spellings
from ser_mtl.corpora.targets import classes_table, label_sets
from ser_mtl.corpora.utterances import FEATURES
from ser_mtl.errors import Notice, UserError


def corpus_of(*emotions: str | None) -> Dataset:
    rows = [{"id": f"{n}.wav", "emotion": emotion} for n, emotion in enumerate(emotions)]
    return Dataset.from_list([dict.fromkeys(FEATURES) | row for row in rows], features=FEATURES)


@pytest.mark.parametrize(
    "cell",
    [
        "",
        "  ",
        "nan",
        "NaN",
        "None",
        "NA",
        "N/A",
        "#N/A",
        "<NA>",
        "null",
        "NULL",
        None,
        "-",
        "?",
        "...",
        "\u2026",
        "\u200b",
        "#REF!",
        "#DIV/0!",
        "\\N",
        "not available",
    ],
)
def test_words_for_nothing_are_empty(cell):
    assert cleaned(cell) is None


@pytest.mark.parametrize("cell", ["sad", "neutral", "no", "0", "+", "-1", "\U0001f600", "nana", "unknown"])
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


@pytest.mark.parametrize("label", ["1e0", "\u00bd", "1/2", "50 %", ".5", "1.", "1,000.5", "1\u00bd"])
def test_a_number_in_another_notation_is_no_class(label):
    with pytest.raises(UserError, match=r"is a number with decimals, a fraction or the like"):
        label_sets(corpus_of(label, "sad"), ["emotion"])


@pytest.mark.parametrize(
    "label",
    ['"angry"', "'angry'", "(angry)", "angry?", "angry*", "_angry", "\u0430ngry", "\u00e5ngry", "\u03b1ngry"],
)
def test_punctuation_accents_and_look_alikes_make_no_label(label):
    with pytest.raises(UserError, match=r"are spellings of one label; did you mean 'angry'\?"):
        label_sets(corpus_of("angry", label, "angry", "sad"), ["emotion"])


@pytest.mark.parametrize(
    "names", [("1", "-1"), ("c", "c+"), ("1-2", "12"), ("\u0930\u093e\u092e", "\u0930\u0940\u092e")]
)
def test_signs_and_vowels_make_different_labels(names):
    assert spellings(names) == []


def test_a_minus_beside_a_plus_is_a_label():
    rows = [dict.fromkeys(FEATURES) | {"emotion": label, "style": "-"} for label in ("+", "-", "nan")]
    clean(rows, "here")
    assert [(row["emotion"], row["style"]) for row in rows] == [("+", None), ("-", None), (None, None)]


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


@pytest.mark.parametrize(
    "name",
    [
        "Unknown speaker",
        "unknown_speaker",
        "speaker: unknown",
        "anon",
        "N.N.",
        "not known",
        "various",
        "??",
        "-1",
        "-1.0",
        "unbekannt",
        "Inconnu",
        "(unknown)",
        "unknown male",
    ],
)
def test_nobody_has_many_names(name):
    assert cleaned(name, EMPTY | NOBODY) is None


@pytest.mark.parametrize("name", ["speaker", "speaker 1", "unknown 2", "0", "1", "m", "NN", "Ann", "Anonda"])
def test_names_like_those_of_nobody_are_names(name):
    assert cleaned(name, EMPTY | NOBODY) == name


@pytest.mark.parametrize(
    "names",
    [("f1", "f1.0"), ("1", "1.0"), ("\u200bf1", "f1"), ("\ufefff1", "F1"), ('"f1"', "f1"), ("\u201cf1\u201d", "f1")],
)
def test_invisible_letters_quotes_and_point_zero_make_no_person(names):
    rows = [{"speaker": name} for name in names]
    one_name_each(rows)
    assert rows[0] == rows[1]


def people(*names: str, genders: tuple[str | None, ...] = (None, None)) -> list[str]:
    return list(alike_people([{"speaker": n, "gender": g} for n, g in zip(names, genders, strict=True)]))


@pytest.mark.parametrize(
    "names",
    [("1", "01"), ("f1", "f01"), ("f_1", "f-1"), ("Jos\u00e9", "Jose"), ("\u0410nna", "Anna"), ("Ses1F", "Ses01F")],
)
def test_zeros_separators_and_accents_are_suspicious(names):
    assert "are most likely one person; did you mean" in people(*names)[0]
    assert people(*names, genders=("m", "m")) and not people(*names, genders=("f", "m"))


@pytest.mark.parametrize("names", [("Ses01F", "Ses01M"), ("1", "10"), ("1-1", "11"), ("p001", "p010"), ("A", "B")])
def test_different_numbers_and_letters_are_different_people(names):
    assert people(*names) == []
