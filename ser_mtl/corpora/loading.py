"""The way into a corpus: from its name and folder, or from a dataset in memory, to rows of utterances."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

from datasets import Dataset

from ser_mtl.corpora.dataset import read_dataset
from ser_mtl.corpora.folder import read_folder
from ser_mtl.corpora.iemocap import read_iemocap
from ser_mtl.errors import UserError

CorpusName = Literal["iemocap", "folder", "demo"]

DEMO_FOLDER = Path("runs/demo/corpus")


def load_corpus(
    name: CorpusName | Dataset,
    data_dir: str | Path | Sequence[str | Path] | None = None,
    check_counts: bool = True,
    distinct_speakers: bool = False,
) -> Dataset:
    """Load a corpus as utterances, one row each, sorted by id. No audio is decoded.

    Args:
        name: "iemocap"; "folder", a folder with a `metadata.csv`; "demo", synthesised on first use; or a dataset with
            some of the columns of `ser_mtl.corpora.utterances.FEATURES`, see `ser_mtl.corpora.dataset.read_dataset`.
        data_dir: the folder of the corpus; "folder" also joins a list of them. By default, $IEMOCAP_DIR or else
            IEMOCAP_full_release for "iemocap", and runs/demo/corpus for "demo".
        check_counts: refuse an IEMOCAP that is not the full release.
        distinct_speakers: the same name in two joined folders means two people.

    Returns:
        A dataset with all columns of `ser_mtl.corpora.utterances.FEATURES`, None for "not annotated".

    Raises:
        UserError: an unknown name, or a corpus that is missing or has a fault.
    """
    if not isinstance(data_dir, str | Path | Sequence | None):
        raise UserError(f"--data_dir {data_dir!r}: must be a folder, or a list of folders")
    folders = [data_dir] if isinstance(data_dir, str | Path) else list(data_dir or [])
    if not isinstance(name, Dataset) and name not in get_args(CorpusName):
        shown = repr(name) if isinstance(name, str | Path) else type(name).__name__
        raise UserError(f"corpus {shown}: must be one of {', '.join(get_args(CorpusName))}, or a datasets.Dataset")
    if name == "folder":
        if not folders:
            raise UserError("--corpus folder needs --data_dir: one or more folders with a metadata.csv")
        return read_folder(folders, distinct_speakers)
    if len(folders) > 1:
        raise UserError("--data_dir: only corpus folder joins several folders; name one")
    folder = folders[0] if folders else None
    if isinstance(name, Dataset):
        return read_dataset(name, folder)
    if name == "demo":
        from ser_mtl.corpora.demo.corpus import make_demo_corpus  # not above: imports torch and eSpeak NG

        return read_iemocap(make_demo_corpus(folder or DEMO_FOLDER), check_counts=False)
    return read_iemocap(folder or os.environ.get("IEMOCAP_DIR") or "IEMOCAP_full_release", check_counts)
