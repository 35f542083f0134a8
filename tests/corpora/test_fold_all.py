"""`--fold all`: every utterance is for training, except for a development set if one is asked for."""

import pytest
from datasets import Dataset

from ser_mtl.corpora.folds import split
from ser_mtl.corpora.summary import training_flags
from ser_mtl.corpora.utterances import FEATURES
from ser_mtl.errors import UserError


def corpus_of(speakers: str, **columns: list) -> Dataset:
    """An utterance of each of these one-letter speakers; "-" is nobody."""
    rows = []
    for i, name in enumerate(speakers):
        row = dict.fromkeys(FEATURES) | {"id": str(i), "path": f"{i}.wav", "corpus": "c", "raters": []}
        row |= {"speaker": None if name == "-" else name, "fold": ord(name) % 5 + 1, "emotion": "ab"[i % 2]}
        rows.append(row | {column: values[i] for column, values in columns.items()})
    return Dataset.from_list(rows, features=FEATURES)


PEOPLE = "abcdefghijklmnopqrst"


@pytest.mark.parametrize("dev", ["dialog", "none"])
def test_everything_is_for_training_but_dev(dev):
    corpus = corpus_of(PEOPLE * 2)
    parts = split(corpus, "all", dev)
    assert set(parts) == {"train", "dev"} - {dev if dev != "none" else "dev"}
    ids = [one for part in parts.values() for one in part["id"]]
    assert sorted(ids) == sorted(corpus["id"])
    if dev == "dialog":
        assert not set(parts["dev"]["speaker"]) & set(parts["train"]["speaker"])
        assert len(set(parts["dev"]["speaker"])) == 2


def test_an_official_split_gives_all_its_parts_and_keeps_its_dev():
    corpus = corpus_of(PEOPLE[:6], split=["train", "train", "dev", "test", "test", "train"], fold=[None] * 6)
    parts = split(corpus, "all")
    assert (parts["train"]["id"][:], parts["dev"]["id"][:]) == (["0", "1", "3", "4", "5"], ["2"])
    assert split(corpus, "all", "none")["train"]["id"][:] == corpus["id"][:]


def test_one_and_two_speakers_get_the_one_hint_that_helps():
    with pytest.raises(UserError, match=r"one speaker.*--fold all --dev none --selection last$"):
        split(corpus_of("aaaa", fold=[1] * 4), 1)
    with pytest.raises(UserError, match=r"one speaker.*--fold all --dev none --selection last$"):
        split(corpus_of("aaaa"), "all")
    assert training_flags(corpus_of("aaaa")) == " --fold all --dev none --selection last"
    with_dialogs = corpus_of("aaaa", dialog=["x", "x", "y", "z"], fold=[1] * 4)
    with pytest.raises(UserError, match=r"one speaker.*--fold all$"):
        split(with_dialogs, 1)
    assert training_flags(with_dialogs) == " --fold all"
    assert len(split(with_dialogs, "all")["dev"]) > 0
    assert {len(part) for part in split(corpus_of("abab"), "all").values()} == {2}


def test_the_session_after_no_test_is_refused():
    with pytest.raises(UserError, match=r"--dev session: .*--fold all"):
        split(corpus_of(PEOPLE), "all", "session")


@pytest.mark.parametrize("official", [True, False])
def test_no_speakers_and_no_dialogs_have_no_dev_to_draw(official):
    corpus = corpus_of("----", split=["train", "train", "test", "test"] if official else [None] * 4)
    with pytest.raises(UserError, match="use --dev none with --selection last"):
        split(corpus, "all")
    assert len(split(corpus, "all", "none")["train"]) == 4
