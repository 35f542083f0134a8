"""From a dataset of the Hub, or a saved one, to utterances, by the rules of a description. No audio is decoded."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import datasets
from datasets import Audio, ClassLabel, Dataset, DatasetDict, load_dataset, load_from_disk
from huggingface_hub.constants import HF_HUB_CACHE

from ser_mtl.corpora.cache import cache_folder
from ser_mtl.corpora.dealing import part_named
from ser_mtl.corpora.described import LeftOut, finished, row_of
from ser_mtl.corpora.description import Description
from ser_mtl.corpora.tables import as_text
from ser_mtl.corpora.tree import AUDIO, suffix_of
from ser_mtl.corpora.utterances import FEATURES
from ser_mtl.errors import UserError, hub_errors
from ser_mtl.files import replacing

_CACHES = (datasets.config.HF_CACHE_HOME, datasets.config.HF_DATASETS_CACHE, HF_HUB_CACHE)
_LONGEST_NAME = 60  # characters, of up to four bytes each


def read_hub(description: Description, name: str, check_counts: bool = True) -> tuple[Dataset, LeftOut]:
    """Read all splits of a dataset. If they are train and test, with or without dev, they are an official split.

    Args:
        description: of the dataset's columns.
        name: of a repository, or a folder.
        check_counts: see `ser_mtl.corpora.described.read_described`.

    Returns:
        The utterances, sorted by id, and what was left out. Audio inside the dataset becomes a file in the cache.

    Raises:
        UserError: the dataset cannot be loaded, or has no audio or no speakers.
    """
    with hub_errors(f"--data_dir {name}: cannot be loaded as a dataset"):
        parts = load_from_disk(name) if _is_saved(Path(name)) else load_dataset(name, description.config)
    if not isinstance(parts, DatasetDict):
        parts = DatasetDict({"all": parts})
    left_out, rows = LeftOut(), []
    for place, fields, path in _utterances(name, parts):
        row = row_of(description, fields)
        if path is None:
            left_out.add("rows have no audio in the dataset", place)
        elif reason := row.pop("left out"):
            left_out.add(reason, place)
        else:
            rows.append(dict.fromkeys(FEATURES) | row | {"id": place, "path": path})
    if rows and not any(row["speaker"] or row["split"] or row["fold"] for row in rows):
        columns = next(iter(parts.values())).column_names
        raise UserError(
            f"{name}: of its columns ({', '.join(columns)}) none is known to hold speakers, who must not be in train "
            f"and test; copy {description.file}, name the column there under [columns], and pass it as --corpus my.toml"
        )
    return finished(description, rows, name, left_out, check_counts)


def _is_saved(folder: Path) -> bool:
    """Whether `save_to_disk` wrote a folder."""
    return any((folder / name).is_file() for name in ("state.json", "dataset_dict.json"))


def _utterances(name: str, parts: DatasetDict) -> Iterator[tuple[str, dict[str, str], str | None]]:
    """The id, the fields and the audio file of each utterance; None for one without audio."""
    official = {part_named(part) for part in parts}
    official_split = {"train", "test"} <= official and None not in official and len(official) == len(parts)
    for part, rows in parts.items():
        column = next((one for one, feature in rows.features.items() if isinstance(feature, Audio)), None)
        if column is None:
            raise UserError(f"{name}: no column of {part} holds audio; its columns: {', '.join(rows.column_names)}")
        labels = {one: feature for one, feature in rows.features.items() if isinstance(feature, ClassLabel)}
        known: dict[str, str] = {"split": part} if official_split else {}
        for number, row in enumerate(rows.cast_column(column, Audio(decode=False))):
            audio = row.pop(column) or {"bytes": None, "path": None}
            row |= {
                one: _label(feature, row[one], f"{name}: {part} {number}: {one}") for one, feature in labels.items()
            }
            stem = Path(audio["path"] or "").stem
            fields = {one: text for one, cell in row.items() if (text := as_text(cell))}
            place = f"{Path(name).name}/{part}/{number:06d}"  # ids of two datasets differ
            yield place, known | fields | {"stem": stem}, _file_of(name, audio)


def _label(feature: ClassLabel, number: int | None, place: str) -> str | None:
    """The name of a label; None for none, which datasets of the Hub also write as -1."""
    if number is None or number == -1:
        return None
    if not 0 <= number < len(feature.names):
        raise UserError(f"{place}: is the label {number}, and the dataset has names for 0 to {len(feature.names) - 1}")
    return feature.names[number]


def _file_of(name: str, audio: dict) -> str | None:
    """The audio as a file: its own, or one in the cache, named by its hash.

    A repository could name any file of this machine: only downloaded ones are taken.
    """
    if audio["bytes"] is None:
        path = audio["path"]
        if path and "\0" in path:
            return None
        downloaded = path and any(Path(path).resolve().is_relative_to(Path(cache).resolve()) for cache in _CACHES)
        return path if path and (downloaded or Path(name).exists()) else None
    suffix = suffix_of(audio["path"] or "")
    digest = hashlib.sha256(audio["bytes"]).hexdigest()[:32]
    # Only the end of a long path: the length of a folder's name is limited.
    folder = cache_folder() / "hub" / name.strip("/").replace("/", "--")[-_LONGEST_NAME:].lstrip(".")
    file = folder / f"{digest}{suffix if suffix in AUDIO else '.wav'}"
    if not file.is_file():
        with replacing(file) as partial:
            partial.write_bytes(audio["bytes"])
    return str(file)
