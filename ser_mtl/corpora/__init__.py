"""From a corpus on disk to batches."""

import os
from pathlib import Path


def load_corpus(name, data_dir=None, check_counts=True):
    """Temporary."""
    from ser_mtl.corpora.demo.corpus import make_demo_corpus
    from ser_mtl.corpora.folder import read_folder
    from ser_mtl.corpora.iemocap import read_iemocap

    if name == "folder":
        return read_folder(data_dir)
    if name == "demo":
        folder = Path(data_dir[0]) if data_dir else Path("runs/demo/corpus")
        return read_iemocap(make_demo_corpus(folder), check_counts=False)
    folder = data_dir[0] if data_dir else os.environ.get("IEMOCAP_DIR", "IEMOCAP_full_release")
    return read_iemocap(Path(folder), check_counts=check_counts)
