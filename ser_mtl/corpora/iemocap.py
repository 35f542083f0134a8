"""IEMOCAP from disk to utterances: the four-class set with all annotations. No audio is decoded.

The F or M after the session number of an id (Ses01F_impro01_M003) is the actor who wore the motion-capture markers in
that dialog, not the speaker. The letter in the last field is the speaker.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from datasets import Dataset, DatasetDict

from ser_mtl.corpora.dealing import DevChoice
from ser_mtl.corpora.folds import split
from ser_mtl.corpora.tree import AUDIO, AudioIndex, best_copy, files_below, suffix_of
from ser_mtl.corpora.utterances import FEATURES
from ser_mtl.errors import UserError, notice
from ser_mtl.files import read_bytes

EMOTIONS = {"neu": "neutral", "hap": "happy", "exc": "happy", "ang": "angry", "sad": "sad"}
"""Consensus codes of the four-class set. Excitement counts as happiness."""

OTHER_CODES = {"fru", "fea", "sur", "dis", "oth", "xxx"}
"""Consensus codes outside the four-class set. xxx means that the raters did not agree."""

EXPECTED_COUNTS = {
    1: {"neutral": 384, "happy": 278, "angry": 229, "sad": 194},
    2: {"neutral": 362, "happy": 327, "angry": 137, "sad": 197},
    3: {"neutral": 320, "happy": 286, "angry": 240, "sad": 305},
    4: {"neutral": 258, "happy": 303, "angry": 327, "sad": 143},
    5: {"neutral": 384, "happy": 442, "angry": 170, "sad": 245},
}
"""Utterances of the full release by session and emotion, 5,531 in all."""

SESSIONS = (1, 2, 3, 4, 5)
STYLES = {"impro": "improvised", "script": "scripted"}
GENDERS = {"F": "female", "M": "male"}

# Utterances such as Ses01F_impro01_MXX0 are not part of the corpus; the digits in the last field exclude them.
_ID = re.compile(r"(?P<dialog>Ses(?P<session>0[1-5])[FM]_(?P<style>impro|script)\w*)_(?P<speaker>[FM])\d+")
_TEXT_FILE = re.compile(r"(?:.*/)?ses0[1-5][fm]_(?:impro|script)\d+[a-z]?(?:_\d+)?[a-z]?\.txt", re.IGNORECASE)
_OTHER_FOLDER = re.compile("(?:^|/)(?:attribute|categorical|self-evaluation|mocap[^/]*)/", re.IGNORECASE)
"""Folders with files of the same names: of single raters, and of motion capture."""

_LABEL = re.compile(
    r"\[\s*(?P<start>[\d.]+)\s*-\s*(?P<end>[\d.]+)\s*\]\s+(?P<id>\S+)\s+(?P<code>\w+)\s+\[(?P<consensus>[\d.,\s]*)\]"
)
_RATER = re.compile(r"(?P<rater>[CA]-\w+):\s*(?P<answer>[^(]*)(?:\((?P<comment>.*?)\)?)?\s*")
_ATTRIBUTE = re.compile(r"(val|act|dom)\s*(\d+(?:\.\d+)?)?")
_TRANSCRIPT = re.compile(r"(?P<id>Ses\w+)\s*(?:\[[\d.\s-]*\])?\s*:(?P<text>.*)")


def load_iemocap(data_dir: Path | str, fold: int, dev: DevChoice = "dialog", check_counts: bool = True) -> DatasetDict:
    """Read IEMOCAP and split it by session: `train`, `test` (session `fold`) and, unless `dev` is "none", `dev`.

    Args:
        data_dir: see `read_iemocap`.
        fold: see `ser_mtl.corpora.folds.split`.
        dev: see `ser_mtl.corpora.folds.split`.
        check_counts: see `read_iemocap`.

    Raises:
        UserError: see `read_iemocap` and `ser_mtl.corpora.folds.split`.
    """
    return split(read_iemocap(data_dir, check_counts), fold, dev)


def read_iemocap(data_dir: Path | str, check_counts: bool = True, left_out: Counter[str] | None = None) -> Dataset:
    """Read the four-class set of IEMOCAP, one row per utterance, sorted by id.

    Copies of the release are read too: with all wav files in one folder, as flac, with names in small letters.

    Args:
        data_dir: the folder IEMOCAP_full_release, the folder above it, or that of a copy.
        check_counts: refuse anything but the full release.
        left_out: receives the number of utterances of each code outside the four classes.

    Raises:
        UserError: no corpus there, no labelled utterance, wrong counts, or missing audio files.
    """
    root, tree = _find_tree(Path(data_dir))
    latin1_files: list[Path] = []
    rows = {row["id"]: row for row in _read_tree(tree, latin1_files, Counter() if left_out is None else left_out)}
    if latin1_files:
        notice(f"{latin1_files[0]}: not UTF-8, read as latin-1 ({len(latin1_files)} files in all)")
    if not rows:
        raise UserError(f"{root}: no labelled utterance in Session*/dialog/EmoEvaluation/Ses*.txt")
    _find_audio(root, list(rows.values()))
    corpus = Dataset.from_list([rows[name] for name in sorted(rows)], features=FEATURES)
    if check_counts:
        check_full_release(corpus, root)
    _check_audio(corpus["path"])
    without_text = sum(text is None for text in corpus["text"])
    if without_text:
        notice(f"{root}: {without_text} of {len(corpus)} utterances have no transcript")
    return corpus


def check_full_release(corpus: Dataset, data_dir: Path | str) -> None:
    """Check that each session has as many utterances of each emotion as the full release.

    Args:
        corpus: IEMOCAP, perhaps incomplete.
        data_dir: where it was read from.

    Raises:
        UserError: lists the sessions and emotions whose counts differ.
    """
    counts = Counter(zip(corpus["fold"], corpus["emotion"], strict=True))
    differences = [
        f"Session{session} {emotion}: {expected} expected, {counts[session, emotion]} found"
        for session, session_counts in EXPECTED_COUNTS.items()
        for emotion, expected in session_counts.items()
        if counts[session, emotion] != expected
    ]
    if differences:
        raise UserError(
            f"{data_dir}: not the full release of IEMOCAP: {'; '.join(differences)}. Unpack all of it again, or turn "
            "check_counts off (--no_check_counts) to use the utterances that are there"
        )


class _Texts(NamedTuple):
    """The text files of a tree, and the folder of the audio of one session, where the release has it."""

    transcripts: list[Path]
    labels: list[Path]
    wav: Path


def _find_tree(data_dir: Path) -> tuple[Path, list[_Texts]]:
    """The folder of the corpus, and its text files: by session as in the release, or wherever they are in a copy."""
    released: tuple[Path, list[_Texts]] | None = None
    for root in (data_dir, data_dir / "IEMOCAP_full_release"):
        if any((root / f"Session{session}").is_dir() for session in SESSIONS):
            released = root, [_texts_of_session(root / f"Session{session}") for session in SESSIONS]
            break
    if released and any(part.labels for part in released[1]):
        return released
    names = files_below(data_dir) if data_dir.is_dir() else ()
    files = [data_dir / name for name in names if _TEXT_FILE.fullmatch(name) and not _OTHER_FOLDER.search(name)]
    if files:
        return data_dir, [_Texts(files, files, data_dir)]
    if released:
        return released
    raise UserError(
        f"{data_dir.absolute()}: no IEMOCAP here: none of Session1 .. Session5. The corpus is licensed; request it at "
        "https://sail.usc.edu/iemocap/ . If you have it, name its folder (--data_dir of a training) or set "
        "$IEMOCAP_DIR; until then, `make demo` runs without it"
    )


def _texts_of_session(folder: Path) -> _Texts:
    """The text files of a session; the pattern `Ses*.txt` skips ._* files, .DS_Store and the like."""
    transcripts, labels = (
        sorted((folder / "dialog" / name).glob("Ses*.txt")) for name in ("transcriptions", "EmoEvaluation")
    )
    return _Texts(transcripts, labels, folder / "sentences" / "wav")


def _read_tree(tree: list[_Texts], latin1_files: list[Path], left_out: Counter[str]) -> Iterator[dict]:
    """The four-class utterances."""
    for part in tree:
        texts: dict[str, str] = {}
        for path in part.transcripts:
            texts |= _parse_transcripts(_read_lines(path, latin1_files))
        for path in part.labels:
            for label in _parse_labels(path, _read_lines(path, latin1_files)):
                code, name = label.pop("code"), _ID.fullmatch(label["id"])
                if code not in EMOTIONS and code not in OTHER_CODES:
                    raise UserError(f"{path}: utterance {label['id']} has the unknown emotion code {code!r}")
                if code in EMOTIONS and name:
                    yield _utterance(label, EMOTIONS[code], name, part.wav) | {"text": texts.get(label["id"])}
                elif name:
                    left_out[code] += 1


def _utterance(label: dict, emotion: str, name: re.Match, wav: Path) -> dict:
    return (
        dict.fromkeys(FEATURES)
        | label
        | {
            "path": str(wav / name["dialog"] / f"{label['id']}.wav"),
            "corpus": "iemocap",
            "speaker": f"Ses{name['session']}{name['speaker']}",
            "dialog": name["dialog"],
            "fold": int(name["session"]),
            "emotion": emotion,
            "gender": GENDERS[name["speaker"]],
            "style": STYLES[name["style"]],
        }
    )


def _find_audio(root: Path, rows: list[dict]) -> None:
    """Find the audio of a copy that does not have it where the release has."""
    if all(Path(row["path"]).is_file() for row in rows):
        return
    audio = [path for path in files_below(root) if suffix_of(path) in AUDIO]
    index = AudioIndex(audio)
    for row in rows:
        if found := index.find(row["id"]):
            row["path"] = str(root / best_copy(found))


def _read_lines(path: Path, latin1_files: list[Path]) -> list[str]:
    """The lines of a text file. A file that is not UTF-8 is read as latin-1 and appended to `latin1_files`."""
    try:
        raw = read_bytes(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); unpack IEMOCAP again") from error
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        latin1_files.append(path)
        text = raw.decode("latin-1")
    # Not splitlines: it also splits at 0x85, which is the ellipsis of Windows in these files.
    return [line.strip() for line in text.split("\n")]


def _parse_transcripts(lines: Iterable[str]) -> dict[str, str]:
    """Transcripts by utterance id, as written. Lines of other forms (`M: ...`) and empty transcripts are skipped."""
    matches = filter(None, map(_TRANSCRIPT.fullmatch, lines))
    return {match["id"]: match["text"].strip() for match in matches if match["text"].strip()}


def _parse_labels(path: Path, lines: Iterable[str]) -> list[dict]:
    """Labels with their raters: id, code, start, end, consensus and `raters`, in the order of the file `path`."""
    labels: list[dict] = []
    raters: list[dict] = []
    for number, line in enumerate(lines, start=1):
        if line.startswith("["):
            raters = []
            try:
                labels.append(_parse_label(line) | {"raters": raters})
            except ValueError:
                raise UserError(f"{path}, line {number}: {line!r} is not a label; unpack IEMOCAP again") from None
        elif rater := _RATER.fullmatch(line):
            raters.append(_parse_rater(rater))
    return labels


def _parse_label(line: str) -> dict:
    """The label in a line such as `[6.2901 - 8.2357] Ses01F_impro01_F000 neu [2.5000, 2.5000, 2.5000]`."""
    label = _LABEL.match(line)
    if label is None:
        raise ValueError(line)
    consensus = [_number(value) for value in label["consensus"].split(",")] + [None] * 3
    return {
        "id": label["id"],
        "code": label["code"],
        "start": float(label["start"]),
        "end": float(label["end"]),
        **dict(zip(("valence", "activation", "dominance"), consensus, strict=False)),
    }


def _parse_rater(rater: re.Match) -> dict:
    """The rater in a line such as `C-E4: Anger; Frustration; (tense)` or `A-E3: val 3; act 2; dom  ; ()`."""
    names_categories = rater["rater"].startswith("C")
    categories = [category.strip() for category in rater["answer"].split(";")] if names_categories else []
    attributes = {} if names_categories else dict(_ATTRIBUTE.findall(rater["answer"]))
    return {
        "rater": rater["rater"],
        "categories": [category for category in categories if category],
        "comment": (rater["comment"] or "").strip() or None,
        "valence": _number(attributes.get("val", "")),
        "activation": _number(attributes.get("act", "")),
        "dominance": _number(attributes.get("dom", "")),
    }


def _number(text: str) -> float | None:
    return float(text) if text.strip() else None


def _check_audio(paths: Iterable[str]) -> None:
    missing = sorted(path for path in paths if not Path(path).is_file())
    if missing:
        raise UserError(f"no audio file {missing[0]} ({len(missing)} missing in all); unpack IEMOCAP again")
