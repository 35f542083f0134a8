"""Pins how IEMOCAP is read: speakers, labels, skipped files, and a clear message for each mistake."""

import os
import shutil
from collections import Counter
from pathlib import Path

import pytest
import soundfile
from helpers.iemocap_tree import LATIN1_TEXT, SILENT, write_tree

from ser_mtl.corpora import iemocap as iemocap_loader
from ser_mtl.corpora.iemocap import load_iemocap, read_iemocap
from ser_mtl.corpora.utterances import FEATURES
from ser_mtl.errors import Notice, UserError

COUNTS = {session: {"neutral": 16, "happy": 32, "angry": 16, "sad": 16} for session in range(1, 6)}


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> tuple[Path, dict]:
    root = tmp_path_factory.mktemp("corpus") / "IEMOCAP_full_release"
    return root, write_tree(root)


@pytest.fixture(scope="module")
def corpus(tree):
    return read_iemocap(tree[0], check_counts=False)


@pytest.fixture
def own_tree(tmp_path) -> Path:
    write_tree(tmp_path)
    return tmp_path


def test_only_the_four_classes_are_read_with_excited_as_happy(corpus, tree):
    columns = ["id", "speaker", "gender", "emotion", "style", "dialog", "fold"]
    read = {row.pop("id"): row for row in corpus.select_columns(columns)}
    assert read == tree[1]
    assert corpus["id"][:] == sorted(tree[1])
    assert corpus.features == FEATURES


def test_one_utterance_with_all_its_annotations(corpus, tree):
    row = next(row for row in corpus if row["id"] == "Ses02F_script02_1b_M002")
    raters = {rater.pop("rater"): rater for rater in row.pop("raters")}
    assert row == {
        "id": "Ses02F_script02_1b_M002",
        "path": str(tree[0] / "Session2/sentences/wav/Ses02F_script02_1b/Ses02F_script02_1b_M002.wav"),
        "corpus": "iemocap",
        "speaker": "Ses02M",
        "dialog": "Ses02F_script02_1b",
        "fold": 2,
        "split": None,
        "emotion": "happy",
        "gender": "male",
        "style": "scripted",
        "text": "Words of Ses02F_script02_1b_M002, “said” [LAUGHTER].",
        "start": 2.25,
        "end": 3.5,
        "valence": 2.5,
        "activation": 3.0,
        "dominance": 3.5,
    }
    nothing = {"categories": [], "comment": None, "valence": None, "activation": None, "dominance": None}
    assert raters == {
        "C-E2": nothing | {"categories": ["Neutral"]},
        "C-E4": nothing | {"categories": ["Anger", "Frustration"], "comment": "tense (or tired)"},
        "C-F1": nothing | {"categories": ["Other"], "comment": "bored"},
        "A-E3": nothing | {"valence": 3.0, "activation": 2.0},
        "A-M1": nothing | {"valence": 4.0, "activation": 3.0, "dominance": 5.0, "comment": "calm"},
    }


def test_raters_of_a_skipped_utterance_are_skipped(corpus):
    assert {len(raters) for raters in corpus["raters"]} == {5}


def test_the_wearer_of_the_markers_is_not_the_speaker(corpus):
    pairs = zip(corpus["id"], corpus["speaker"], strict=True)
    seen = {(name[5], name.rpartition("_")[2][0], speaker[5]) for name, speaker in pairs}
    assert seen == {("F", "F", "F"), ("F", "M", "M"), ("M", "F", "F"), ("M", "M", "M")}
    assert len(set(corpus["speaker"])) == 10


@pytest.mark.parametrize("dev", ["dialog", "session", "none"])
@pytest.mark.parametrize("fold", range(1, 6))
def test_test_speakers_are_never_in_train_or_dev(tree, fold, dev):
    splits = load_iemocap(tree[0], fold, dev, check_counts=False)
    tested = set(splits["test"]["speaker"])
    assert tested == {f"Ses0{fold}F", f"Ses0{fold}M"}
    assert set(splits) == {"train", "dev", "test"} - ({"dev"} if dev == "none" else set())
    assert all(tested.isdisjoint(rows["speaker"]) for name, rows in splits.items() if name != "test")
    assert sum(map(len, splits.values())) == len(tree[1])


def test_a_latin1_file_is_read_with_one_warning(tree):
    with pytest.warns(Notice) as caught:
        corpus = read_iemocap(tree[0], check_counts=False)
    texts = dict(zip(corpus["id"], corpus["text"], strict=True))
    assert texts["Ses01F_impro01_F000"] == texts["Ses01F_impro01_M004"] == LATIN1_TEXT
    said = [str(one.message) for one in caught if "latin-1" in str(one.message)]
    assert len(said) == 1
    assert "Session1/dialog/transcriptions/Ses01F_impro01.txt: not UTF-8, read as latin-1 (1 files in all)" in said[0]


def test_only_utterances_without_a_transcript_have_no_text(corpus):
    assert [row["id"] for row in corpus if row["text"] is None] == [SILENT]


def test_the_folder_above_the_release_is_accepted(tree, corpus):
    assert read_iemocap(tree[0].parent, check_counts=False)["path"][:] == corpus["path"][:]


def test_expected_counts_are_the_published_ones():
    by_emotion = Counter()
    for numbers in iemocap_loader.EXPECTED_COUNTS.values():
        by_emotion.update(numbers)
    assert by_emotion == {"neutral": 1708, "happy": 1636, "angry": 1103, "sad": 1084}
    sessions = [sum(numbers.values()) for numbers in iemocap_loader.EXPECTED_COUNTS.values()]
    assert sessions == [1085, 1023, 1151, 1031, 1241]


def test_expected_counts_are_accepted(tree, monkeypatch):
    monkeypatch.setattr(iemocap_loader, "EXPECTED_COUNTS", COUNTS)
    assert len(read_iemocap(tree[0])) == 400


def test_wrong_counts_are_listed_with_the_flag(own_tree, monkeypatch):
    monkeypatch.setattr(iemocap_loader, "EXPECTED_COUNTS", COUNTS)
    labels = own_tree / "Session4/dialog/EmoEvaluation/Ses04M_impro01.txt"
    labels.write_text(labels.read_text().replace("\tsad\t", "\tfru\t"))
    with pytest.raises(UserError) as stop:
        read_iemocap(own_tree)
    message = str(stop.value)
    assert "Session4 sad: 16 expected, 14 found." in message
    assert message.count("expected") == 1
    assert "--no_check_counts" in message
    assert "\n" not in message
    assert len(read_iemocap(own_tree, check_counts=False)) == 398


def test_a_missing_wav_is_named_and_counted(own_tree):
    folder = own_tree / "Session5/sentences/wav/Ses05F_impro01"
    (folder / "Ses05F_impro01_M001.wav").unlink()
    (folder / "Ses05F_impro01_M003.wav").unlink()
    with pytest.raises(UserError, match=r"Ses05F_impro01_M001\.wav \(2 missing in all\)"):
        read_iemocap(own_tree, check_counts=False)


def test_an_unknown_emotion_code_is_named(own_tree):
    labels = own_tree / "Session2/dialog/EmoEvaluation/Ses02F_impro01.txt"
    labels.write_text(labels.read_text().replace("\txxx\t", "\thpp\t"))
    with pytest.raises(UserError, match=r"Ses02F_impro01\.txt: utterance Ses02F_impro01_F006 .* 'hpp'"):
        read_iemocap(own_tree, check_counts=False)


LABEL = "[1.2500 - 2.5000]\tSes02F_impro01_F001\thap\t[2.5000, 3.0000, 3.5000]\n"


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("[1.2500 - 2.5000]", "[1.2.5 - 2.5]"),
        ("[1.2500 - 2.5000]", "[1.25 2.5]"),
        ("[1.2500 - 2.5000]", "[- - .]"),
        ("[2.5000, 3.0000, 3.5000]", "[2.5000, 3.000 0, 3.5000]"),
        ("[2.5000, 3.0000, 3.5000]", "[2.5000, ., 3.5000]"),
        ("\t[2.5000, 3.0000, 3.5000]", "\x1b[31m"),
    ],
)
def test_a_damaged_label_is_named_with_its_line(tmp_path, right, wrong):
    labels = tmp_path / "Session2/dialog/EmoEvaluation/Ses02F_impro01.txt"
    labels.parent.mkdir(parents=True)
    labels.write_text(f"% [START_TIME - END_TIME]\n\n{LABEL.replace(right, wrong)}C-E2:\tNeutral;\t()\n")
    with pytest.raises(UserError, match=r"Ses02F_impro01\.txt, line 3: .*_F001.* is not a label; ") as stop:
        read_iemocap(tmp_path, check_counts=False)
    assert str(stop.value).isprintable()


@pytest.mark.parametrize("part", ["EmoEvaluation", "transcriptions"])
@pytest.mark.parametrize("instead", ["folder", "broken link", "link to itself", "pipe"])
def test_a_file_that_cannot_be_read_is_named(tmp_path, part, instead):
    path = tmp_path / f"Session2/dialog/{part}/Ses02F_impro01.txt"
    path.parent.mkdir(parents=True)
    if instead == "folder":
        path.mkdir()
    elif instead == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(path if instead == "link to itself" else tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"Ses02F_impro01\.txt: cannot be read \(.+\); unpack IEMOCAP again"):
        read_iemocap(tmp_path, check_counts=False)


def test_a_missing_corpus_is_refused_with_advice(tmp_path):
    with pytest.raises(UserError) as stop:
        read_iemocap(tmp_path / "nowhere")
    message = str(stop.value)
    for part in (str(tmp_path / "nowhere"), "https://sail.usc.edu/iemocap/", "$IEMOCAP_DIR", "data_dir", "make demo"):
        assert part in message
    assert "\n" not in message


def test_sessions_without_labels_are_refused(tmp_path):
    (tmp_path / "Session1").mkdir()
    with pytest.raises(UserError, match="no labelled utterance"):
        read_iemocap(tmp_path, check_counts=False)


def as_flac(path: Path) -> None:
    samples, rate = soundfile.read(path)
    soundfile.write(path.with_suffix(".flac"), samples, rate)
    path.unlink()


def in_small_letters(root: Path) -> None:
    for path in sorted(root.rglob("*"), key=lambda path: -len(path.parts)):
        path.rename(path.with_name(path.name.lower()))


def flattened(root: Path) -> None:
    """All audio in one folder, labels in a second, transcripts in a third."""
    for folder in ("wav", "labels", "text"):
        (root / folder).mkdir()
    for path in sorted(root.glob("Session*/sentences/wav/*/Ses*.wav")):
        path.rename(root / "wav" / path.name)
    for folder, name in (("labels", "EmoEvaluation"), ("text", "transcriptions")):
        for path in sorted(root.glob(f"Session*/dialog/{name}/Ses*.txt")):
            path.rename(root / folder / path.name)
    for session in root.glob("Session*"):
        shutil.rmtree(session)


def without_folders_in_a_session(root: Path) -> None:
    for session in sorted(root.glob("Session*")):
        (session / "wav").mkdir()
        for path in sorted(session.glob("sentences/wav/*/Ses*.wav")):
            path.rename(session / "wav" / path.name)
        for name in ("EmoEvaluation", "transcriptions"):
            (session / "dialog" / name).rename(session / name)


def all_flac(root: Path) -> None:
    for path in sorted(root.rglob("Ses*.wav")):
        as_flac(path)


@pytest.mark.parametrize("change", [in_small_letters, flattened, without_folders_in_a_session, all_flac])
def test_copies_in_another_form_are_the_same_corpus(tmp_path, change):
    root = tmp_path / "IEMOCAP"
    write_tree(root)
    expected = read_iemocap(root, check_counts=False).remove_columns("path").to_list()
    change(root)
    copy = read_iemocap(root, check_counts=False)
    assert copy.remove_columns("path").to_list() == expected
    assert all(Path(path).is_file() for path in copy["path"])
