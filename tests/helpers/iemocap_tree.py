"""A small IEMOCAP tree for tests: the real layout, with all the oddities of real trees. All words are invented."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile

CODES = ("neu", "hap", "exc", "ang", "sad", "fru", "xxx")
FOUR_CLASS = {"neu": "neutral", "hap": "happy", "exc": "happy", "ang": "angry", "sad": "sad"}
KINDS = {"impro01": "improvised", "impro05a": "improvised", "script01_1": "scripted", "script02_1b": "scripted"}

LATIN1_DIALOG = "Ses01F_impro01"
LATIN1_TEXT = "At the café\x85 [LAUGHTER] no {pause} 2 cups."
SILENT = "Ses03M_script01_1_F000"
"""The utterance without a transcript."""

HEADER = "% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]\n\n"
RATERS = (
    "C-E2:\tNeutral;\t()\n"
    "C-E4:\tAnger; Frustration;\t(tense (or tired))\n"
    "C-F1:\tOther;\t(bored)\n"
    "A-E3:\tval 3; act 2; dom  ;\t()\n"
    "A-M1:\tval 4; act 3; dom  5;\t(calm)\n"
)


def _same_values(name: str) -> tuple[float, float, float]:
    return 2.5, 3.0, 3.5


def write_tree(root: Path, values_of: Callable[[str], tuple[float, float, float]] = _same_values) -> dict[str, dict]:
    """Write five sessions of eight dialogs under `root`.

    Args:
        root: to be made.
        values_of: consensus of valence, activation and dominance of an utterance.

    Returns:
        The expected annotations by utterance id: speaker, gender, emotion, style, dialog, fold. Each of the ten
        speakers has 40 utterances: 8 neutral, 16 happy, 8 angry and 8 sad, half of them improvised.
    """
    truth: dict[str, dict] = {}
    for session in range(1, 6):
        folder = root / f"Session{session}"
        for marker in "FM":
            for kind in KINDS:
                truth |= _write_dialog(folder, session, f"Ses0{session}{marker}_{kind}", KINDS[kind], values_of)
        labels = folder / "dialog" / "EmoEvaluation"
        (labels / f"Ses0{session}M_impro09.txt").write_text(HEADER)
        _write_junk(folder)
    (root / "._Session1").write_bytes(b"\x00\x05\x16\x07")
    return truth


def _write_dialog(folder: Path, session: int, dialog: str, style: str, values_of: Callable) -> dict[str, dict]:
    truth = {}
    labels, words = HEADER, "M: [BREATHING]\n"
    for speaker, gender in (("F", "female"), ("M", "male")):
        for number, code in enumerate(CODES):
            name = f"{dialog}_{speaker}{number:03d}"
            consensus = ", ".join(f"{value:.4f}" for value in values_of(name))
            labels += f"[{number}.2500 - {number + 1}.5000]\t{name}\t{code}\t[{consensus}]\n{RATERS}\n"
            if name != SILENT:
                text = LATIN1_TEXT if dialog == LATIN1_DIALOG else f"Words of {name}, “said” [LAUGHTER]."
                words += f"{name} [{number:03d}.2500-{number + 1:03d}.5000]: {text}\n"
            if code in FOUR_CLASS:
                _write_wav(folder / "sentences" / "wav" / dialog / f"{name}.wav")
                truth[name] = {
                    "speaker": f"Ses0{session}{speaker}",
                    "gender": gender,
                    "emotion": FOUR_CLASS[code],
                    "style": style,
                    "dialog": dialog,
                    "fold": session,
                }
    extra = f"{dialog}_MXX0"
    labels += f"[9.0000 - 9.5000]\t{extra}\tang\t[1.0000, 1.0000, 1.0000]\nC-E1:\tSurprise;\t()\n"
    words += f"{extra} [009.0000-009.5000]: Nobody's words.\nF: And these.\n"
    _write(folder / "dialog" / "EmoEvaluation" / f"{dialog}.txt", labels.encode())
    encoding = "latin-1" if dialog == LATIN1_DIALOG else "utf-8"
    _write(folder / "dialog" / "transcriptions" / f"{dialog}.txt", words.encode(encoding))
    return truth


def _write_junk(folder: Path) -> None:
    """Write AppleDouble and desktop files beside every file, and sub-folders with wrong labels for the same dialogs."""
    for path in [path for path in folder.rglob("*") if path.is_file()]:
        (path.parent / f"._{path.name}").write_bytes(b"\x00\x05\x16\x07\xff\xfe")
        (path.parent / ".DS_Store").write_bytes(b"\x00\x00\x00\x01Bud1")
        (path.parent / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0")
    labels = folder / "dialog" / "EmoEvaluation"
    for path in sorted(labels.glob("Ses*.txt")):
        path.with_suffix(".anvil").write_bytes(b"<annotation>\xff</annotation>")
        for name in ("Attribute", "Categorical", "Self-evaluation"):
            _write(labels / name / path.name, path.read_bytes().replace(b"\tneu\t", b"\tang\t"))
    (folder / "dialog" / "wav").mkdir()


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _write_wav(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.zeros(160), 16000, subtype="PCM_16")
