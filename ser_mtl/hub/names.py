"""Names of speakers and files in public repositories: hashed, so that they can be compared but not read."""

import hashlib

NOTE = "Speakers and files are named by hashes: the first 16 digits of the SHA-256 of their names."
"""The note on a card without names; a repository whose card lacks it has names in its history."""

HASHED = "names of speakers and files were hashed; ser-mtl publish --keep_names publishes them as they are"
"""The line on the terminal after a publication."""

PRIVATE_MODEL = "a private model"
"""In place of its name in public repositories."""


def hashed(name: str) -> str:
    """The hash that stands for a name, the same in every file and every run."""
    return hashlib.sha256(name.encode()).hexdigest()[:16]


def without_names_in_results(results: dict) -> dict:
    """The content of `results.json` with hashed speakers, and a mark for the card."""
    return results | {
        "held_out_speakers": sorted(map(hashed, results.get("held_out_speakers", []))),
        "hashed_names": True,
    }


def without_names_in_split(split: dict) -> dict:
    """The content of `split.json` with hashed ids and speakers, and a mark that says so.

    Each `sha256` remains that of the original ids.
    """
    parts = {
        name: part | _hashed_ids(part) | _hashed_speakers(part)
        for name, part in split.items()
        if isinstance(part, dict) and "ids" in part
    }
    return split | parts | {"hashed_names": True}


def _hashed_ids(part: dict) -> dict[str, list[str]]:
    """The hashed ids of a split, sorted, with the hashes of their audio in the same order if there are any."""
    columns = {name: part[name] for name in ("ids", "audio") if len(part.get(name, ())) == len(part["ids"])}
    rows = sorted(zip(map(hashed, part["ids"]), *(columns[name] for name in columns if name != "ids"), strict=True))
    return {name: [row[i] for row in rows] for i, name in enumerate(columns)}


def _hashed_speakers(part: dict) -> dict[str, list[str]]:
    return {"speakers": sorted(map(hashed, part["speakers"]))} if "speakers" in part else {}


def without_names_in_predictions(rows: list[dict]) -> list[dict]:
    """The rows of `predictions.jsonl` with hashed ids and speakers."""
    return [
        row | {"id": hashed(row["id"]), "speaker": None if row["speaker"] is None else hashed(row["speaker"])}
        for row in rows
    ]
