"""Loading a corpus: from its name and folder, or from a dataset in memory, to rows of utterances."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from datasets import Dataset

from ser_mtl.corpora.dataset import read_dataset
from ser_mtl.corpora.described import LeftOut, read_described
from ser_mtl.corpora.description import DESCRIBED, is_described, read_description
from ser_mtl.corpora.folder import read_folder
from ser_mtl.corpora.iemocap import read_iemocap
from ser_mtl.corpora.mapping import with_map
from ser_mtl.corpora.tree import AUDIO, files_below, suffix_of
from ser_mtl.errors import UserError, notice
from ser_mtl.parsing import did_you_mean

CORPORA = ("iemocap", "folder", "demo", *DESCRIBED)
"""Names of corpora. Any other is the path of a description, a TOML file."""

CORPUS_HELP = f"iemocap, demo, {', '.join(DESCRIBED)}; folder (with a metadata.csv), or my.toml."

DEMO_FOLDER = Path("runs/demo/corpus")


class Reading(NamedTuple):
    """A corpus: its utterances, and a line for each reason why others were left out."""

    corpus: Dataset
    left_out: list[str]


def load_corpus(
    name: str | Path | Dataset,
    data_dir: str | Path | Sequence[str | Path] | None = None,
    check_counts: bool = True,
    distinct_speakers: bool = False,
    label_map: Sequence[str] | Mapping[str, str] = (),
) -> Dataset:
    """Load a corpus as utterances, one row each, sorted by id. No audio is decoded.

    Args:
        name: "iemocap"; "folder", a folder with a `metadata.csv`; "demo", synthesised on first use; a described corpus
            such as "ravdess" or "hub"; the path of a description, a TOML file; or a dataset with some of the columns of
            `ser_mtl.corpora.utterances.FEATURES`, see `ser_mtl.corpora.dataset.read_dataset`.
        data_dir: the folder of the corpus, or the repository for "hub"; "folder" also joins a list of them. By default,
            $IEMOCAP_DIR or else IEMOCAP_full_release for "iemocap", and runs/demo/corpus for "demo".
        check_counts: refuse an incomplete corpus.
        distinct_speakers: the same name in two joined folders means two people.
        label_map: new labels, as `{"anger": "angry", "disgust": ""}` or as the words of `--map`.

    Returns:
        A dataset with all columns of `ser_mtl.corpora.utterances.FEATURES`, None for "not annotated".

    Raises:
        UserError: an unknown name, or a corpus that is missing or has a fault.
    """
    reading = read_corpus(name, data_dir, check_counts, distinct_speakers, label_map)
    if reading.left_out and not isinstance(name, Dataset) and is_described(str(name)):
        notice(f"left out, as `ser-mtl corpus` shows: {'; '.join(reading.left_out)}")
    return reading.corpus


def read_corpus(
    name: str | Path | Dataset,
    data_dir: str | Path | Sequence[str | Path] | None = None,
    check_counts: bool = True,
    distinct_speakers: bool = False,
    label_map: Sequence[str] | Mapping[str, str] = (),
) -> Reading:
    """As `load_corpus`, with the reasons why utterances were left out."""
    if not isinstance(data_dir, str | Path | Sequence | None):
        raise UserError(f"--data_dir {data_dir!r}: must be a folder, or a list of folders")
    name = str(name) if isinstance(name, Path) else name
    if not isinstance(name, str | Dataset):
        raise UserError(f"corpus {type(name).__name__}: must be the name of a corpus, or a datasets.Dataset")
    folders = [data_dir] if isinstance(data_dir, str | Path) else list(data_dir or [])
    reading = _read(name, folders, check_counts, distinct_speakers)
    if not label_map:
        return reading
    corpus, left_out = with_map(reading.corpus, label_map)
    return Reading(corpus, reading.left_out + left_out)


def _read(name: str | Dataset, folders: list, check_counts: bool, distinct_speakers: bool) -> Reading:
    if not isinstance(name, Dataset):
        check_corpus_name(name)
    if name == "folder":
        if not folders:
            raise UserError("--corpus folder needs --data_dir: one or more folders with a metadata.csv")
        return Reading(read_folder(folders, distinct_speakers), [])
    if len(folders) > 1:
        raise UserError("--data_dir: only corpus folder joins several folders; name one")
    folder = folders[0] if folders else None
    if isinstance(name, Dataset):
        return Reading(read_dataset(name, folder), [])
    if is_described(name):
        return _described(name, folder, check_counts)
    if name == "demo":
        from ser_mtl.corpora.demo.corpus import make_demo_corpus  # not above: imports torch and eSpeak NG

        return Reading(read_iemocap(make_demo_corpus(folder or DEMO_FOLDER), check_counts=False), [])
    codes: Counter[str] = Counter()
    corpus = read_iemocap(folder or os.environ.get("IEMOCAP_DIR") or "IEMOCAP_full_release", check_counts, codes)
    return Reading(corpus, [f"{count} utterances have the emotion {code!r}" for code, count in codes.most_common()])


def not_in_table(folder: Path, corpus: Dataset) -> list[str]:
    """A line on the audio files of a folder corpus that its `metadata.csv` does not name, if there are any."""
    known, left_out = {os.path.normpath(path) for path in corpus["path"]}, LeftOut()
    audio = [name for name in files_below(folder) if suffix_of(name) in AUDIO]
    left_out.add("audio files are not in metadata.csv", *(name for name in audio if str(folder / name) not in known))
    return left_out.lines()


def _described(name: str, folder: str | Path | None, check_counts: bool) -> Reading:
    description = read_description(name)
    where = folder or description.hub
    if where is None:
        raise UserError(
            f"--corpus {name} needs --data_dir: "
            + ("user/dataset on the Hub" if name == "hub" else f"the folder of {description.title}")
            + (f"; get it from {description.address}" if description.address else "")
        )
    if name == "hub" or description.hub:
        from ser_mtl.corpora.hub import read_hub  # not above: knows the Hub's client

        corpus, left_out = read_hub(description, str(where), check_counts)
    else:
        corpus, left_out = read_described(description, Path(where), check_counts)
    return Reading(corpus, left_out.lines())


def place_of_data(name: str, data_dir: str) -> str:
    """The absolute path of a corpus, valid in any working directory; a repository of the Hub as it is."""
    on_hub = name == "hub" or (name.endswith(".toml") and read_description(name).hub is not None)
    return data_dir if on_hub and not os.path.isdir(data_dir) else os.path.abspath(data_dir)


def check_corpus_name(name: str) -> None:
    """Check that a corpus of this name can be read.

    Raises:
        UserError: there is none.
    """
    if name in CORPORA or is_described(name):
        return
    raise UserError(
        f"--corpus {name!r}: must be one of {', '.join(CORPORA)}, the path of a .toml"
        f"{did_you_mean(name.lower(), CORPORA)}, or a datasets.Dataset"
    )


def name_in_results(name: str) -> str:
    """The name of a corpus in results and folders: for a TOML file, its stem."""
    return Path(name).stem if name.endswith(".toml") else name


def name_with_folders(name: str, data_dir: Sequence[str | Path] | None) -> str:
    """The name of a corpus for people: as in results, or the names of a folder corpus's folders."""
    folders = "+".join(Path(folder).resolve().name for folder in data_dir or [] if name == "folder")
    return folders or name_in_results(name)
