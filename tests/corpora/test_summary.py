"""Pins the tables of a corpus: counts and hours against the files, the splits against `split`, each likely mistake."""

import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
from datasets import Dataset
from helpers.iemocap_tree import write_tree

from ser_mtl.corpora.folder import read_folder
from ser_mtl.corpora.folds import split
from ser_mtl.corpora.iemocap import read_iemocap
from ser_mtl.corpora.summary import corpus_tables
from ser_mtl.corpora.utterances import FEATURES
from ser_mtl.errors import UserError


def corpus_of(folder: Path, *rows: dict) -> Dataset:
    """Write utterances and their audio: `seconds` of silence, by default one, or `bytes`."""
    utterances = []
    for number, row in enumerate(rows):
        path = folder / f"{number}.wav"
        seconds, content = row.pop("seconds", 1), row.pop("bytes", None)
        soundfile.write(path, np.zeros(seconds * 8000), 8000)
        if content is not None:
            path.write_bytes(content)
        utterances.append(dict.fromkeys(FEATURES) | {"id": f"u{number}", "path": str(path), "fold": 1} | row)
    return Dataset.from_list(utterances, features=FEATURES)


def complete(folds: range = range(1, 6), emotions: tuple = ("angry", "sad")) -> list[dict]:
    """Rows without a mistake: two speakers in each fold, each with all emotions."""
    return [
        {"fold": fold, "emotion": emotion, "gender": gender, "style": "acted", "speaker": f"{gender}{fold}"}
        | {"text": f"words of {gender}", "dialog": f"d{fold}"}
        for fold in folds
        for gender in ("female", "male")
        for emotion in emotions
    ]


def section(tables: str, title: str) -> str:
    return re.search(rf"^{re.escape(title)}\n-+\n(.*?)(\n\n|\Z)", tables, re.DOTALL | re.MULTILINE)[1]


def cells(tables: str, title: str) -> dict[str, list[str]]:
    """The cells of each row, by its name; the header's name is empty."""
    header, *rows = section(tables, title).splitlines()
    return {"": header.split()} | {row.split()[0]: row.split()[1:] for row in rows}


@pytest.fixture(scope="module")
def iemocap(tmp_path_factory) -> Dataset:
    root = tmp_path_factory.mktemp("corpus")
    write_tree(root)
    return read_iemocap(root, check_counts=False)


def test_utterances_are_counted_by_fold_and_label(iemocap):
    tables = corpus_tables(iemocap)
    by_fold = cells(tables, "Utterances by fold and emotion")
    assert by_fold[""] == ["angry", "happy", "neutral", "sad", "all", "hours"]
    assert [by_fold[str(fold)][:5] for fold in range(1, 6)] == [["16", "32", "16", "16", "80"]] * 5
    assert by_fold["all"][:5] == ["80", "160", "80", "80", "400"]
    assert cells(tables, "By gender") == {
        "": ["utterances", "hours", "speakers"],
        "female": ["200", "0.00", "5"],
        "male": ["200", "0.00", "5"],
    }
    annotations = cells(tables, "Annotations")
    assert annotations["emotion"] == ["400", "0", "4"]
    assert annotations["text"][:2] == ["399", "1"]
    assert annotations["speaker"] == ["400", "0", "10"]
    assert "Splits of fold" not in tables


def test_hours_are_the_lengths_of_the_files(tmp_path):
    rows = [{"seconds": 1800, "speaker": "x", "emotion": "sad"}, {"seconds": 3600, "speaker": "y"}, {"speaker": "y"}]
    tables = corpus_tables(corpus_of(tmp_path, *rows))
    assert section(tables, "Size") == (
        "utterances: 3, 1.50 hours\n"
        "seconds: 1800.33 on average, from 1.00 to 3600.00\n"
        "speakers: 2, with 1 (x) to 2 (y) utterances"
    )
    by_fold = cells(tables, "Utterances by fold and emotion")
    assert by_fold == {"": ["(none)", "sad", "all", "hours"], "1": ["2", "1", "3", "1.50"], "all": by_fold["1"]}


@pytest.mark.parametrize("dev", ["dialog", "session", "none"])
def test_the_splits_are_those_of_training(iemocap, dev):
    tables = corpus_tables(iemocap, 2, dev)
    table = cells(tables, f"Splits of fold 2, dev {dev}")
    for name, part in split(iemocap, 2, dev).items():
        utterances, _, speakers, dialogs, *emotions = map(float, table[name])
        assert utterances == sum(emotions) == len(part)
        assert (speakers, dialogs) == (len(set(part["speaker"])), len(set(part["dialog"])))
        assert emotions == [part["emotion"][:].count(name) for name in ("angry", "happy", "neutral", "sad")]
    assert ("dev" in table) == (dev != "none")
    assert "Leaks: no shared speaker; " in tables


def test_an_impossible_split_is_refused(iemocap):
    with pytest.raises(UserError, match="fold 6: must be"):
        corpus_tables(iemocap, 6)


def test_a_corpus_without_mistakes_has_no_warnings(tmp_path):
    rows = complete()
    for number, row in enumerate(rows):
        row["style"] = ("read", "acted")[number // 2 % 2]
    assert section(corpus_tables(corpus_of(tmp_path, *rows)), "Likely mistakes") == "none found"


@pytest.mark.parametrize(
    ("change", "warning"),
    [
        (
            {0: {"emotion": "Sad"}},
            "emotion: 'Sad', 'sad' are spellings of one label, which stop a training; --map Sad=sad",
        ),
        ({0: {"gender": "fe male"}}, "spellings of one label, which stop a training; --map 'gender:fe male=female'"),
        ({0: {"speaker": "FEMALE1"}}, "column 'speaker': 'FEMALE1', 'female1' are most likely one person"),
        ({}, "style: all utterances have the same label, 'acted'"),
        ({n: {"speaker": "x"} for n in range(20)}, "speaker: there is only one, 'x'"),
        ({0: {"speaker": None}}, "speaker: missing in 1 rows; the same person may be in train and test"),
        ({0: {"text": None}, 1: {"text": "[SIGH]"}}, "text: missing in 2 rows, or without words"),
        ({n: {"emotion": "angry"} for n in (5, 7, 17, 19)}, "emotion: no 'sad' in fold 2, 5"),
        ({n: {"fold": 1} for n in range(8, 20)}, "fold: no utterance in 3, 4, 5"),
        ({3: {"bytes": b"no audio"}, 5: {"seconds": 0}}, "audio: 2 unreadable or empty: {0}/3.wav, {0}/5.wav"),
        ({n: {"bytes": b""} for n in range(7)}, "{0}/3.wav, {0}/4.wav and 2 more"),
        ({2: {"seconds": 61}}, "audio: 1 longer than 60 seconds (--max_seconds of a training): {0}/2.wav"),
        ({2: {"text": "nan"}, 4: {"text": "NaN"}}, "text: 2 transcripts are a word for nothing, such as 'nan'"),
    ],
)
def test_a_likely_mistake_is_named(tmp_path, change, warning):
    rows = complete()
    for number, columns in change.items():
        rows[number] |= columns
    warnings = section(corpus_tables(corpus_of(tmp_path, *rows)), "Likely mistakes")
    assert warning.format(tmp_path) in " ".join(warnings.split())


def test_tables_fit_in_eighty_columns(tmp_path):
    emotions = tuple(f"emotion-number-{number}" for number in range(12))
    rows = complete(emotions=emotions)
    rows[0]["emotion"] = "EMOTION-NUMBER-0"
    tables = corpus_tables(corpus_of(tmp_path, *rows), 1)
    assert max(map(len, tables.splitlines())) <= 80
    assert all(emotion in tables for emotion in emotions)


def test_recordings_that_need_ffmpeg_are_counted_with_the_command(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    for name in ("a.m4a", "b.amr", "c.wav"):
        (tmp_path / name).write_bytes(b"no wav")
    (tmp_path / "metadata.csv").write_text("file_name,fold\na.m4a,1\nb.amr,2\nc.wav,3\n")
    text = " ".join(corpus_tables(read_folder([tmp_path])).split())
    assert f"2 audio files need ffmpeg, which is not installed: {tmp_path}/a.m4a, {tmp_path}/b.amr; install" in text
    assert f"ffmpeg -i {tmp_path}/a.m4a {tmp_path}/a.m4a.wav" in text
    assert f"1 unreadable or empty: {tmp_path}/c.wav" in text


def test_each_speaker_is_a_row_with_the_fold_and_the_emotions(tmp_path):
    tables = corpus_tables(corpus_of(tmp_path, *complete()))
    speakers = cells(tables, "By speaker")
    assert speakers[""] == ["fold", "gender", "utterances", "hours", "angry", "sad"]
    assert speakers["female3"] == ["3", "female", "2", "0.00", "1", "1"]
    assert len(speakers) == 11


def test_without_a_fold_the_sizes_of_all_splits_are_shown(tmp_path):
    corpus = corpus_of(tmp_path, *complete())
    sizes = section(corpus_tables(corpus), "Splits").splitlines()
    assert sizes[0].split() == ["train", "dev", "test"]
    expected = [str(len(part)) for part in split(corpus, 2).values()]
    assert sizes[2].split() == ["test", "fold", "2", *expected]
    alone = corpus_of(tmp_path, {"emotion": "sad", "speaker": "x"})
    assert "fold 1: " in section(corpus_tables(alone), "Splits")


def test_of_many_speakers_the_first_and_the_last_are_shown(tmp_path):
    corpus = corpus_of(tmp_path, *({"speaker": f"s{n:02}", "emotion": "sad", "seconds": 0} for n in range(50)))
    speakers = section(corpus_tables(corpus), "By speaker")
    assert ("s19" in speakers, "s20" in speakers, "s30" in speakers) == (True, False, True)
    assert "10 more between" in speakers
