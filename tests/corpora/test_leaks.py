"""Pins the leak check: planted leaks are found, near-duplicates counted as defined, and a run reports both."""

import json

import pytest
from datasets import Dataset, DatasetDict
from helpers.tiny import check_refused, run_flags, run_script, write_corpus

from ser_mtl.corpora.leaks import check_no_shared_audio, find_leaks, has_near_duplicate, leaks_line
from ser_mtl.corpora.utterances import FEATURES
from ser_mtl.errors import UserError

PLAY = "i have waited for you all night long"


def rows(*utterances: dict) -> Dataset:
    return Dataset.from_list([dict.fromkeys(FEATURES) | utterance for utterance in utterances], features=FEATURES)


def test_near_duplicates_are_counted_by_style_from_five_words_on():
    test = rows(
        {"speaker": "x", "style": "scripted", "text": "I have waited for you all night... [SIGH] long!"},
        {"speaker": "x", "style": "scripted", "text": "Something that nobody else has ever said"},
        {"speaker": "x", "style": "improvised", "text": "It is my own car, you know"},
        {"speaker": "x", "style": "improvised", "text": "I don't know"},
        {"speaker": None, "style": None, "text": PLAY},
        {"speaker": "x", "style": "scripted", "text": None},
    )
    train = rows({"text": PLAY}, {"text": "I don't know"}, {"text": None})
    leaks = find_leaks(DatasetDict(train=train, test=test))
    assert leaks == {
        "test_without_speaker": 1,
        "near_duplicates": {
            "all": {"n": 4, "share": 0.5},
            "improvised": {"n": 1, "share": 0.0},
            "scripted": {"n": 2, "share": 0.5},
        },
    }
    assert leaks_line(leaks) == (
        "Leaks: 1 test utterances without a speaker, not checked; test transcripts with a near-duplicate in train: "
        "all 50.0 % of 4, improvised 0.0 % of 1, scripted 50.0 % of 2"
    )


@pytest.mark.parametrize(
    ("transcript", "near_duplicate"),
    [
        ("a b c d e", True),
        ("a b c d x", True),  # one word in five is replaced
        ("a b c d", True),  # one of five is missing
        ("a b c d e f", True),  # one of six is added
        ("a b c x y", False),
        ("e d c b a", False),  # the same words in another order
    ],
)
def test_near_duplicates_differ_in_one_word_in_five_at_most(transcript, near_duplicate):
    assert has_near_duplicate([transcript.split()], [["q"], list("abcde")]).tolist() == [near_duplicate]


def decoded(*digests: str) -> Dataset:
    rows = [{"id": f"u{n}", "digest": digest, "peak": int(digest != "silence")} for n, digest in enumerate(digests)]
    return Dataset.from_list(rows)


@pytest.mark.parametrize("other", ["dev", "test"])
def test_a_recording_under_two_names_in_two_splits_is_refused(other):
    splits = DatasetDict({"train": rows({"id": "u0"}, {"id": "u1"}), other: rows({"id": "u2"}, {"id": "u3"})})
    check_no_shared_audio(splits, decoded("a", "a", "b", "c"))
    with pytest.raises(UserError, match=rf"^u1 in train and u3 in {other} are the same recording \(1 shared in all\)"):
        check_no_shared_audio(splits, decoded("a", "c", "b", "c"))
    check_no_shared_audio(splits, decoded("a", "silence", "b", "silence"))


def test_without_transcripts_there_is_nothing_to_compare():
    splits = DatasetDict(train=rows({"text": PLAY}), test=rows({"speaker": "x"}))
    assert find_leaks(splits) == {"test_without_speaker": 0, "near_duplicates": {}}
    assert has_near_duplicate([PLAY.split()], []).tolist() == [False]


def test_a_run_with_a_planted_speaker_is_refused(tmp_path, encoder):
    import pandas as pd

    corpus = write_corpus(tmp_path / "mine")
    table = pd.read_csv(corpus / "metadata.csv")
    table["fold"] = [int(speaker[1:]) for speaker in table["speaker"]]
    table.loc[len(table) - 1, ["speaker", "gender"]] = "f1", "female"  # a speaker of fold 1, in fold 5
    table.to_csv(corpus / "metadata.csv", index=False)
    flags = run_flags(corpus, tmp_path / "out", encoder=encoder)
    check_refused("run_stage1", flags, "speaker 'f1'", "train and test", "fold")


def test_a_run_prints_and_records_its_leaks(good_corpus, encoder, tmp_path):
    flags = run_flags(good_corpus, tmp_path / "out", encoder=encoder, tasks=["emotion"], num_train_epochs=1)
    ended = run_script("run_stage1", flags)
    assert ended.code == 0, ended.stderr
    leaks = json.loads((tmp_path / "out/results.json").read_text())["leaks"]
    assert leaks == {"test_without_speaker": 0, "near_duplicates": {}}  # its sentences have three words
    assert leaks_line(leaks) in ended.stdout
