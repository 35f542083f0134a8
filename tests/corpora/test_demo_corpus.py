"""Pins the demo corpus: same seed, same bytes; balanced; readable as IEMOCAP; never partial; overwrites nothing."""

import hashlib
import json
import subprocess
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile

from ser_mtl.corpora.demo import corpus as demo_corpus
from ser_mtl.corpora.demo import espeak
from ser_mtl.corpora.demo.corpus import make_demo_corpus
from ser_mtl.corpora.demo.text import FILLERS
from ser_mtl.corpora.iemocap import read_iemocap
from ser_mtl.errors import UserError

SIZE = 80
ROOT = Path(__file__).parents[2]


def digest(folder: Path) -> str:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    whole = hashlib.sha256()
    for path in files:
        whole.update(str(path.relative_to(folder)).encode() + path.read_bytes())
    return whole.hexdigest()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_demo_corpus(tmp_path_factory.mktemp("corpus") / "demo", seed=3, utterances=SIZE)


@pytest.fixture(scope="module")
def corpus(folder):
    return read_iemocap(folder, check_counts=False).to_pandas()


def test_an_utterance_does_not_depend_on_what_was_spoken_before():
    manner = espeak.Manner("en-us+f5", rate=150, pitch=70)  # a breathy voice, with noise
    first = espeak.speak("The train is late again", manner)
    espeak.speak("Something else", espeak.Manner("en-us+m1"))
    assert np.array_equal(first, espeak.speak("The train is late again", manner))


def test_an_unknown_voice_is_refused():
    with pytest.raises(RuntimeError, match="no-such-voice"):
        espeak.speak("hello", espeak.Manner("no-such-voice"))


def test_same_seed_gives_the_same_bytes_in_another_process(folder, python, tmp_path):
    again = tmp_path / "again"
    code = f"from ser_mtl.corpora.demo.corpus import make_demo_corpus; make_demo_corpus({str(again)!r}, 3, {SIZE})"
    subprocess.run([python, "-c", code], cwd=ROOT, check=True)
    assert digest(again) == digest(folder)


def test_the_words_of_a_seed_never_change(corpus):
    digest_of_words = hashlib.sha256("\n".join(corpus["text"]).encode()).hexdigest()
    assert digest_of_words == "5d2b80a336894af98ed640e48200c6abc2028c79f84e94ca130a7aef909cb573"


def test_another_seed_gives_different_words_and_sound(folder, tmp_path):
    other = make_demo_corpus(tmp_path / "other", seed=4, utterances=SIZE)

    def contents(root: Path, pattern: str) -> set[bytes]:
        return {path.read_bytes() for path in root.rglob(pattern)}

    assert not contents(folder, "*.wav") & contents(other, "*.wav")
    assert not contents(folder, "transcriptions/*.txt") & contents(other, "transcriptions/*.txt")


def test_labels_are_balanced(corpus):
    assert len(corpus) == SIZE
    cells = Counter(zip(corpus["speaker"], corpus["gender"], corpus["style"], corpus["emotion"], strict=True))
    assert set(cells.values()) == {1} and len(cells) == 10 * 2 * 4
    assert Counter(corpus["fold"]) == dict.fromkeys(range(1, 6), SIZE // 5)


@pytest.mark.parametrize("size", [20, 40])
def test_each_label_of_a_smaller_corpus_is_balanced(tmp_path, size):
    small = read_iemocap(make_demo_corpus(tmp_path / "small", utterances=size), check_counts=False)
    for column, classes in (("emotion", 4), ("gender", 2), ("style", 2), ("fold", 5)):
        assert sorted(Counter(small[column]).values()) == [size // classes] * classes


def test_each_style_of_a_session_has_several_dialogs_of_both_genders(corpus):
    for _, part in corpus.groupby(["fold", "style"]):
        assert part["dialog"].nunique() >= 2
        assert (part.groupby("dialog")["gender"].nunique() == 2).all()


def test_the_letter_of_a_dialog_is_not_always_its_speakers(corpus):
    assert {name[5] + name.split("_")[-1][0] for name in corpus["id"]} == {"FF", "FM", "MF", "MM"}


def test_every_recording_has_a_transcript_a_label_and_raters(folder, corpus):
    assert sorted(map(str, folder.rglob("*.wav"))) == sorted(corpus["path"])
    assert corpus["text"].str.fullmatch(r"[A-Z].*[a-z]\.").all()
    assert corpus["raters"].map(len).eq(6).all()
    assert corpus[["valence", "activation", "dominance"]].stack().between(1, 5).all()


def test_most_raters_agree_with_the_label(corpus):
    names = {"Neutral": "neutral", "Happiness": "happy", "Excited": "happy", "Anger": "angry", "Sadness": "sad"}
    agreeing = [
        [names.get(rater["categories"][0]) == emotion for rater in raters if rater["rater"].startswith("C-E")]
        for raters, emotion in zip(corpus["raters"], corpus["emotion"], strict=True)
    ]
    assert all(sum(votes) >= 2 for votes in agreeing)
    assert 0.7 < np.mean(agreeing) < 1


def test_recordings_are_16_khz_mono_16_bit_short_and_unclipped(corpus):
    for path, start, end in corpus[["path", "start", "end"]].itertuples(index=False):
        info = soundfile.info(path)
        assert (info.samplerate, info.channels, info.subtype) == (16_000, 1, "PCM_16")
        assert 0.8 < info.duration < 5
        assert info.duration == pytest.approx(end - start, abs=1e-3)
        assert np.abs(soundfile.read(path)[0]).max() < 0.99
    assert 1.5 < (corpus["end"] - corpus["start"]).mean() < 3


def test_anger_is_louder_than_sadness(corpus):
    level = {path: np.std(soundfile.read(path)[0]) for path in corpus["path"]}
    by_emotion = corpus["path"].map(level).groupby(corpus["emotion"]).mean()
    assert by_emotion["angry"] > 2 * by_emotion["sad"]


def test_only_improvised_speech_hesitates(corpus):
    def hesitates(text: str) -> bool:
        return "," in text or text.split()[0].lower() in FILLERS

    hesitating = corpus["text"].map(hesitates).groupby(corpus["style"]).mean()
    assert hesitating["scripted"] == 0
    assert hesitating["improvised"] > 0.6


def test_every_session_acts_the_same_plays(corpus):
    scripted = corpus[corpus["style"] == "scripted"]
    lines = scripted.groupby("fold")["text"].agg(frozenset)
    assert len(set(lines)) == 1
    assert len(set(corpus["text"]) - set(scripted["text"])) > SIZE // 4


def test_a_finished_corpus_is_reused(folder):
    marks = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert make_demo_corpus(folder, seed=3, utterances=SIZE) == folder
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == marks


def test_a_corpus_of_another_seed_or_size_is_refused_and_kept(folder):
    before = digest(folder)
    with pytest.raises(UserError, match=f"of seed 3 and {SIZE} utterances, not of seed 4 and {SIZE}"):
        make_demo_corpus(folder, seed=4, utterances=SIZE)
    with pytest.raises(UserError, match="name another folder"):
        make_demo_corpus(folder, seed=3, utterances=40)
    assert digest(folder) == before


@pytest.mark.parametrize("marker", [None, "not json", "[]"])
def test_a_folder_with_other_files_is_refused_and_kept(tmp_path, marker):
    (tmp_path / "notes.txt").write_text("mine")
    if marker is not None:
        (tmp_path / demo_corpus.MARKER).write_text(marker)
    with pytest.raises(UserError, match="is not a demo corpus"):
        make_demo_corpus(tmp_path, utterances=20)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_file_in_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "demo").write_text("mine")
    with pytest.raises(UserError, match="is not a demo corpus"):
        make_demo_corpus(tmp_path / "demo", utterances=20)


def test_an_empty_folder_is_filled(tmp_path):
    make_demo_corpus(tmp_path, utterances=20)
    assert json.loads((tmp_path / demo_corpus.MARKER).read_text()) == {"corpus": "demo", "seed": 0, "utterances": 20}


def test_an_interrupted_build_leaves_nothing(tmp_path, monkeypatch):
    spoken = []

    def speak_thrice(*arguments):
        if len(spoken) == 3:
            raise KeyboardInterrupt
        spoken.append(original(*arguments))
        return spoken[-1]

    original = espeak.speak
    monkeypatch.setattr(espeak, "speak", speak_thrice)
    with pytest.raises(KeyboardInterrupt):
        make_demo_corpus(tmp_path / "demo", utterances=20)
    assert len(spoken) == 3
    assert list(tmp_path.iterdir()) == []


def test_two_processes_at_once_make_one_complete_corpus(python, tmp_path):
    code = (
        f"from ser_mtl.corpora.demo.corpus import make_demo_corpus; make_demo_corpus({str(tmp_path / 'demo')!r}, 0, 20)"
    )
    both = [subprocess.Popen([python, "-c", code], cwd=ROOT) for _ in range(2)]
    assert [process.wait() for process in both] == [0, 0]
    assert [path.name for path in tmp_path.iterdir()] == ["demo"]
    assert len(read_iemocap(tmp_path / "demo", check_counts=False)) == 20


def test_a_corpus_that_is_too_small_is_refused(tmp_path):
    with pytest.raises(ValueError, match="at least 20"):
        make_demo_corpus(tmp_path / "demo", utterances=19)
