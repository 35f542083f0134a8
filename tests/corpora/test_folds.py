"""Pins train, dev and test: balanced folds, the choice of dev, and that a leak is refused."""

import hashlib
import random
from collections import Counter

import pytest
from datasets import Dataset, DatasetDict

from ser_mtl.corpora.dealing import deal_speakers
from ser_mtl.corpora.dev_set import scenario_of
from ser_mtl.corpora.folds import split
from ser_mtl.corpora.leaks import check_no_leak
from ser_mtl.corpora.split_record import split_record
from ser_mtl.corpora.utterances import FEATURES
from ser_mtl.errors import UserError

EMOTIONS = ("angry", "happy", "neutral", "sad")


def corpus_of(rows: list[dict]) -> Dataset:
    rows = [dict.fromkeys(FEATURES) | {"id": f"u{i:04d}", "corpus": "c"} | row for i, row in enumerate(rows)]
    return Dataset.from_list(rows, features=FEATURES)


def with_dialogs() -> Dataset:
    """Five folds of 20 dialogs, three quarters of them improvised. A dialog has one emotion; sadness is rare."""
    return corpus_of(
        [
            {
                "fold": fold,
                "dialog": f"{fold}-{dialog}",
                "speaker": f"{fold}{gender[0]}",
                "gender": gender,
                "style": "improvised" if dialog < 15 else "scripted",
                "emotion": "sad" if dialog == 7 else EMOTIONS[dialog % 3],
            }
            for fold in range(1, 6)
            for dialog in range(20)
            for gender in ("female", "male")
        ]
    )


def with_speakers(name: str = "c", labelled: int = 60) -> list[dict]:
    """60 speakers, 12 a fold, a third of them men, three utterances each; the first `labelled` have emotions."""
    return [
        {
            "id": f"{name}/{speaker}-{number}",
            "corpus": name,
            "fold": speaker % 5 + 1,
            "speaker": f"{name}/{speaker}",
            "gender": "male" if speaker % 3 == 0 else "female",
            "emotion": EMOTIONS[number] if speaker < labelled else None,
        }
        for speaker in range(60)
        for number in range(3)
    ]


def test_speakers_are_dealt_evenly_by_gender_and_size():
    generator = random.Random(0)
    utterances = [
        (f"{gender}{speaker}", gender)
        for gender in ("female", "male")
        for speaker in range(30)
        for _ in range(generator.randint(1, 40))
    ]
    folds = deal_speakers(*zip(*utterances, strict=True))
    assert set(folds) == {speaker for speaker, _ in utterances}
    size = Counter(speaker for speaker, _ in utterances)
    for gender in ("female", "male"):
        dealt = [[size[s] for s in folds if s.startswith(gender) and folds[s] == fold] for fold in range(1, 6)]
        least = min(map(sum, dealt))
        # The last speaker dealt to a fold is its smallest, and was dealt when no fold was smaller.
        assert all(sum(sizes) - min(sizes) <= least for sizes in dealt)
        assert max(map(sum, dealt)) < 1.1 * least


def test_ties_go_to_fewest_speakers_then_utterances_then_first_fold():
    sizes = {"f1": 9, "f2": 3, "f3": 3, "f4": 3, "f5": 3, "f6": 2, "f7": 1, "f8": 1, "f9": 1, "m1": 8, "m2": 7}
    speakers = [speaker for speaker, size in sizes.items() for _ in range(size)]
    women = {"f1": 1, "f2": 2, "f3": 3, "f4": 4, "f5": 5, "f6": 2, "f7": 3, "f8": 4, "f9": 5}
    assert deal_speakers(speakers, [speaker[0] for speaker in speakers]) == women | {"m1": 1, "m2": 3}


def test_dealing_does_not_depend_on_the_row_order():
    utterances = [(f"s{i % 23}", (None, "female", "male")[i % 23 % 3]) for i in range(300)]
    utterances += [("s1", "male"), ("s1", None)]
    dealt = deal_speakers(*zip(*utterances, strict=True))
    for seed in range(5):
        shuffled = random.Random(seed).sample(utterances, len(utterances))
        assert deal_speakers(*zip(*shuffled, strict=True)) == dealt


@pytest.mark.parametrize("fold", range(1, 6))
def test_dev_session_is_the_next_fold_and_1_follows_5(fold):
    splits = split(with_dialogs(), fold, "session")
    held_out = {name: set(rows["fold"]) for name, rows in splits.items()}
    following = {1: 2, 2: 3, 3: 4, 4: 5, 5: 1}[fold]
    assert held_out == {"train": {1, 2, 3, 4, 5} - {fold, following}, "dev": {following}, "test": {fold}}


@pytest.mark.parametrize("fold", range(1, 6))
def test_dev_is_a_tenth_of_the_dialogs_with_all_styles_and_emotions(fold):
    splits = split(with_dialogs(), fold, "dialog")
    dev = splits["dev"]
    styles = dict(zip(dev["dialog"], dev["style"], strict=True))
    assert Counter(styles.values()) == {"improvised": 6, "scripted": 2}
    assert set(dev["emotion"]) == set(EMOTIONS)
    assert styles.keys().isdisjoint(splits["train"]["dialog"])
    assert set(splits["test"]["fold"]) == {fold}
    assert sorted(name for rows in splits.values() for name in rows["id"]) == with_dialogs()["id"][:]


def test_dev_depends_on_the_fold_but_not_on_seed_or_row_order():
    corpus = with_dialogs()
    random.seed(1)
    first = split(corpus, 1, "dialog")["dev"]["id"][:]
    random.seed(2)
    assert split(corpus, 1, "dialog")["dev"]["id"][:] == first
    assert sorted(split(corpus.shuffle(seed=3), 1, "dialog")["dev"]["id"]) == sorted(first)
    dialogs = {tuple(name[2:] for name in split(corpus, fold, "dialog")["dev"]["dialog"]) for fold in range(1, 6)}
    assert len(dialogs) == 5


def test_without_dialogs_dev_is_a_tenth_of_the_speakers():
    splits = split(corpus_of(with_speakers()), 2, "dialog")
    genders = dict(zip(splits["dev"]["speaker"], splits["dev"]["gender"], strict=True))
    assert len(genders) == 5
    assert set(genders.values()) == {"female", "male"}
    assert genders.keys().isdisjoint(splits["train"]["speaker"])


def test_dev_has_one_speaker_of_each_gender_with_two_or_more():
    rows = [{"fold": i % 2 + 1, "speaker": f"s{i}", "gender": "male" if i > 3 else "female"} for i in range(8)]
    rows += [{"fold": 2, "speaker": "alone", "gender": "other"}]
    dev = split(corpus_of(rows), 1, "dialog")["dev"]
    assert sorted(dev["gender"]) == ["female", "male"]


def test_dev_prefers_speakers_with_emotions():
    dev = split(corpus_of(with_speakers(labelled=20)), 3, "dialog")["dev"]
    assert None not in dev["emotion"]


def test_dev_is_the_same_part_of_a_corpus_alone_and_joined():
    joined = split(corpus_of(with_speakers("one") + with_speakers("two", labelled=0)), 4, "dialog")["dev"]
    for name, labelled in (("one", 60), ("two", 0)):
        alone = split(corpus_of(with_speakers(name, labelled)), 4, "dialog")["dev"]["speaker"][:]
        assert [speaker for speaker in joined["speaker"] if speaker.startswith(name)] == alone


def test_dev_speakers_are_out_of_train_in_all_joined_corpora():
    rows = [row | {"speaker": row["speaker"].split("/")[1]} for row in with_speakers("one") + with_speakers("two", 20)]
    splits = split(corpus_of(rows), 4, "dialog")
    assert set(splits["dev"]["corpus"]) == {"one", "two"}
    assert set(splits["dev"]["speaker"]).isdisjoint(splits["train"]["speaker"])


@pytest.mark.parametrize(
    ("dialog", "scenario"),
    [
        ("Ses01F_impro01", "Ses01_impro01"),
        ("Ses01M_impro05b", "Ses01_impro05"),
        ("Ses04F_script01_1", "Ses04_script01_1"),
        ("mine/Ses05M_script02_1b", "mine/Ses05_script02_1"),
        ("d1", "d1"),
        ("Ses01F", "Ses01F"),
    ],
)
def test_both_recordings_of_an_iemocap_scenario_are_one_unit(dialog, scenario):
    assert scenario_of(dialog) == scenario


@pytest.mark.parametrize("prefix", ["", "mine/"])
@pytest.mark.parametrize("fold", range(1, 6))
def test_no_scenario_of_iemocap_is_in_both_dev_and_train(fold, prefix):
    kinds = [
        *(f"impro{n:02d}" for n in range(1, 9)),
        "impro05b",
        *(f"script0{n}_{m}" for n in (1, 2, 3) for m in (1, 2)),
    ]
    corpus = corpus_of(
        [
            {"fold": s, "speaker": f"Ses0{s}{voice}", "dialog": f"{prefix}Ses0{s}{marker}_{kind}", "style": kind[:5]}
            | {"emotion": EMOTIONS[len(kind) % 4]}
            for s in range(1, 6)
            for marker in "FM"
            for kind in kinds
            for voice in "FM"
        ]
    )
    splits = split(corpus, fold, "dialog")
    held = {
        name: {d.replace("F_", "_").replace("M_", "_").rstrip("b") for d in rows["dialog"]}
        for name, rows in splits.items()
    }
    assert held["dev"].isdisjoint(held["train"])
    assert len(held["dev"]) == round(4 * 14 / 10)
    assert len(splits["dev"]) in range(4 * len(held["dev"]), 4 * len(held["dev"]) + 9)


def test_without_dev_there_are_only_train_and_test():
    assert {name: len(rows) for name, rows in split(with_dialogs(), 5, "none").items()} == {"train": 160, "test": 40}


@pytest.mark.parametrize(
    ("rows", "fold", "dev", "said"),
    [
        ([{"fold": 1}, {"fold": 2}], 0, "none", "fold 0: must be one of 1 to 5"),
        ([{"fold": 1}, {"fold": 2}], 6, "none", "fold 6: must be one of 1 to 5"),
        ([{"fold": 1}, {"fold": 3}], 2, "none", "--fold 2: fold 2 holds no utterance; folds with utterances: 1, 3"),
        ([{"fold": 1}, {"fold": 3}], 1, "session", "dev session: fold 2 holds no utterance"),
        (
            [{"fold": 1}, {"fold": 2, "speaker": "x"}],
            1,
            "dialog",
            "fold 1 with --dev dialog leaves no utterance to train on",
        ),
        (
            [{"fold": 1}, {"fold": 2, "dialog": "x"}],
            1,
            "dialog",
            "fold 1 with --dev dialog leaves no utterance to train on",
        ),
        ([{"fold": 1}, {"fold": 2}], 1, "session", "fold 1 with --dev session leaves no utterance to train on"),
        ([{"fold": 1}], 1, "none", "fold 1 with --dev none leaves no utterance to train on"),
        ([{"fold": 1}, {"fold": 2}], 1, "dialog", "corpus 'c' has no dialogs and no speakers"),
        ([{"fold": 1}, {"fold": 2}], 1, "dialogue", "dev 'dialogue': must be one of dialog, session, none"),
    ],
)
def test_a_split_that_cannot_be_made_says_why(rows, fold, dev, said):
    with pytest.raises(UserError, match=said):
        split(corpus_of(rows), fold, dev)


@pytest.mark.parametrize(
    ("train", "dev", "test", "said"),
    [
        ({"speaker": "x"}, {}, {"speaker": "x"}, "speaker 'x' is in both train and test"),
        ({}, {"speaker": "x"}, {"speaker": "x"}, "speaker 'x' is in both dev and test"),
        ({"speaker": "Actor 1"}, {}, {"speaker": "ACTOR1"}, "speaker 'Actor 1' is in both train and test"),
        ({"dialog": "d"}, {}, {"dialog": "d"}, "dialog 'd' is in both train and test"),
        ({"dialog": "d"}, {"dialog": "d"}, {}, "dialog 'd' is in both train and dev"),
        ({}, {"dialog": "d"}, {"dialog": "d"}, "dialog 'd' is in both dev and test"),
        ({"dialog": "D 1"}, {"dialog": "d1"}, {}, "dialog 'D 1' is in both train and dev"),
    ],
)
def test_every_leak_is_refused(train, dev, test, said):
    splits = DatasetDict(train=corpus_of([{}, train]), dev=corpus_of([{}, dev]), test=corpus_of([{}, test]))
    with pytest.raises(UserError, match=said):
        check_no_leak(splits)


def test_shared_dev_speakers_and_missing_annotations_are_no_leak():
    splits = DatasetDict(
        train=corpus_of([{"speaker": "x", "dialog": "d"}, {}]),
        dev=corpus_of([{"speaker": "x", "dialog": "e"}, {}]),
        test=corpus_of([{"speaker": "y", "dialog": "f"}, {}]),
    )
    check_no_leak(splits)


def test_a_speaker_in_two_folds_is_refused():
    with pytest.raises(UserError, match="speaker 'x' is in both train and test"):
        split(corpus_of([{"fold": 1, "speaker": "x"}, {"fold": 2, "speaker": "x"}]), 1, "none")


def test_the_record_lists_sorted_ids_with_their_hash():
    splits = DatasetDict(train=corpus_of([{"id": "b"}, {"id": "a"}]), test=corpus_of([{"id": "c"}]))
    record = split_record(splits, 3, "none")
    assert record == {
        "fold": 3,
        "dev_choice": "none",
        "train": {"ids": ["a", "b"], "sha256": hashlib.sha256(b"a\nb").hexdigest()},
        "test": {"ids": ["c"], "sha256": hashlib.sha256(b"c").hexdigest()},
    }
