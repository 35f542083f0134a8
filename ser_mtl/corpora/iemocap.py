"""IEMOCAP, as it lies on disk, to utterances: the four-class set, fully annotated. No audio is read here.

The F or M after the session number of an id (Ses01F_impro01_M003) is the actor who wore the motion-capture
markers in that dialog, not the speaker. The speaker is the letter of the last field.
"""

import logging
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from datasets import Dataset, DatasetDict

from ser_mtl.corpora.folds import DevChoice, split
from ser_mtl.corpora.utterances import FEATURES
from ser_mtl.errors import UserError

logger = logging.getLogger(__name__)

EMOTIONS = {"neu": "neutral", "hap": "happy", "exc": "happy", "ang": "angry", "sad": "sad"}
"""Consensus codes of the four-class set; excitement counts as happiness."""

OTHER_CODES = {"fru", "fea", "sur", "dis", "oth", "xxx"}
"""Consensus codes left out; xxx: the raters did not agree."""

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

# Utterances such as Ses01F_impro01_MXX0 are in no label set; the digits of the last field rule them out.
_ID = re.compile(r"(?P<dialog>Ses\d\d[FM]_(?P<style>impro|script)\w*)_(?P<speaker>[FM])\d+")
_LABEL = re.compile(
    r"\[\s*(?P<start>[\d.]+)\s*-\s*(?P<end>[\d.]+)\s*\]\s+(?P<id>\S+)\s+(?P<code>\w+)\s+\[(?P<consensus>[\d.,\s]*)\]"
)
_RATER = re.compile(r"(?P<rater>[CA]-\w+):\s*(?P<answer>[^(]*)(?:\((?P<comment>.*?)\)?)?\s*")
_ATTRIBUTE = re.compile(r"(val|act|dom)\s*(\d+(?:\.\d+)?)?")
_TRANSCRIPT = re.compile(r"(?P<id>Ses\w+)\s*(?:\[[\d.\s-]*\])?\s*:(?P<text>.*)")


def load_iemocap(data_dir: Path | str, fold: int, dev: DevChoice = "dialog", check_counts: bool = True) -> DatasetDict:
    """IEMOCAP split by session: `train`, `test` (session `fold`) and, unless `dev` is "none", `dev`.

    Raises:
        UserError: as `read_iemocap` and `ser_mtl.corpora.folds.split` do.
    """
    return split(read_iemocap(data_dir, check_counts), fold, dev)


def read_iemocap(data_dir: Path | str, check_counts: bool = True) -> Dataset:
    """Read the four-class set of IEMOCAP, one row an utterance, sorted by id.

    Args:
        data_dir: the folder IEMOCAP_full_release, or the one that holds it.
        check_counts: stop where a session has not as many utterances of an emotion as the full release.

    Raises:
        UserError: no corpus there, no labelled utterance, other counts than expected, missing audio files.
    """
    root = _find_root(Path(data_dir))
    latin1: list[Path] = []
    rows = {row["id"]: row for session in SESSIONS for row in _read_session(root, session, latin1)}
    if latin1:
        logger.warning("Not UTF-8, read as latin-1: %s (%d files in all)", latin1[0], len(latin1))
    if not rows:
        raise UserError(f"{root}: no labelled utterance in Session*/dialog/EmoEvaluation/Ses*.txt")
    if check_counts:
        _check_counts(root, rows.values())
    _check_audio(rows.values())
    silent = sum(row["text"] is None for row in rows.values())
    if silent:
        logger.warning("%d of %d utterances have no transcript in %s", silent, len(rows), root)
    return Dataset.from_list([rows[name] for name in sorted(rows)], features=FEATURES)


def _find_root(data_dir: Path) -> Path:
    for root in (data_dir, data_dir / "IEMOCAP_full_release"):
        if any((root / f"Session{session}").is_dir() for session in SESSIONS):
            return root
    raise UserError(
        f"No IEMOCAP: looked for Session1 .. Session5 in {data_dir.absolute()}. The corpus is licensed; "
        "the request form is at https://sail.usc.edu/iemocap/ . Where you have it, set $IEMOCAP_DIR or pass "
        "--data_dir; meanwhile `make demo` runs without it."
    )


def _read_session(root: Path, session: int, latin1: list[Path]) -> Iterator[dict]:
    """Four-class utterances of one session. `Ses*.txt` leaves out ._*, .DS_Store and what else lies about."""
    folder = root / f"Session{session}"
    texts: dict[str, str] = {}
    for path in sorted((folder / "dialog" / "transcriptions").glob("Ses*.txt")):
        texts |= _parse_transcripts(_read_lines(path, latin1))
    for path in sorted((folder / "dialog" / "EmoEvaluation").glob("Ses*.txt")):
        for label in _parse_labels(_read_lines(path, latin1)):
            code, name = label.pop("code"), _ID.fullmatch(label["id"])
            if code not in EMOTIONS and code not in OTHER_CODES:
                raise UserError(f"{path}: utterance {label['id']} has the unknown emotion code {code!r}")
            if code in EMOTIONS and name:
                yield label | {
                    "path": str(folder / "sentences" / "wav" / name["dialog"] / f"{label['id']}.wav"),
                    "corpus": "iemocap",
                    "speaker": f"Ses{session:02d}{name['speaker']}",
                    "dialog": name["dialog"],
                    "fold": session,
                    "emotion": EMOTIONS[code],
                    "gender": GENDERS[name["speaker"]],
                    "style": STYLES[name["style"]],
                    "text": texts.get(label["id"]),
                }


def _read_lines(path: Path, latin1: list[Path]) -> list[str]:
    """Lines of a text file; appends its path to `latin1` where it is not UTF-8."""
    raw = path.read_bytes()
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        latin1.append(path)
        text = raw.decode("latin-1")
    # Not splitlines: it also breaks at 0x85, which in such files is the ellipsis of Windows.
    return [line.strip() for line in text.split("\n")]


def _parse_transcripts(lines: Iterable[str]) -> dict[str, str]:
    """Transcript by utterance id, as written; lines of other forms (`M: ...`) or without words go."""
    matches = filter(None, map(_TRANSCRIPT.fullmatch, lines))
    return {match["id"]: match["text"].strip() for match in matches if match["text"].strip()}


def _parse_labels(lines: Iterable[str]) -> list[dict]:
    """Labels with their raters: id, code, start, end, consensus and `raters`, in the order of the file."""
    labels: list[dict] = []
    raters: list[dict] = []
    for line in lines:
        if line.startswith("["):
            raters = []  # also for a line of another form, so that its raters do not go to the one before
        if label := _LABEL.match(line):
            consensus = [_number(value) for value in label["consensus"].split(",")] + [None] * 3
            labels.append(
                {
                    "id": label["id"],
                    "code": label["code"],
                    "start": float(label["start"]),
                    "end": float(label["end"]),
                    **dict(zip(("valence", "activation", "dominance"), consensus, strict=False)),
                    "raters": raters,
                }
            )
        elif rater := _RATER.fullmatch(line):
            raters.append(_parse_rater(rater))
    return labels


def _parse_rater(rater: re.Match) -> dict:
    """A line such as `C-E4: Anger; Frustration; (tense)` or `A-E3: val 3; act 2; dom  ; ()`."""
    of_categories = rater["rater"].startswith("C")
    categories = [category.strip() for category in rater["answer"].split(";")] if of_categories else []
    attributes = {} if of_categories else dict(_ATTRIBUTE.findall(rater["answer"]))
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


def _check_counts(root: Path, rows: Iterable[dict]) -> None:
    found = Counter((row["fold"], row["emotion"]) for row in rows)
    differing = [
        f"Session{session} {emotion}: {number} expected, {found[session, emotion]} found"
        for session, numbers in EXPECTED_COUNTS.items()
        for emotion, number in numbers.items()
        if found[session, emotion] != number
    ]
    if differing:
        raise UserError(
            f"{root} is not the full release of IEMOCAP: {'; '.join(differing)}. Unpack all of it anew, "
            "or pass --no_check_counts to go on with what is there."
        )


def _check_audio(rows: Iterable[dict]) -> None:
    missing = sorted(row["path"] for row in rows if not Path(row["path"]).is_file())
    if missing:
        raise UserError(f"No audio file {missing[0]} ({len(missing)} missing in all); unpack IEMOCAP anew")
