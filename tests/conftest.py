"""Settings of every test: no network, one thread, caches in a folder that goes when the tests end.

Set before any library reads them, and inherited by the processes that tests start. And what tests of whole runs share.
"""

import os
import tempfile
from pathlib import Path

import pytest

_CACHE = tempfile.TemporaryDirectory(prefix="ser-mtl-tests-")

os.environ["HF_DATASETS_CACHE"] = _CACHE.name
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")

pytest.register_assert_rewrite("tiny")  # it asserts for the tests

# `tiny` is imported where it is used: it takes seconds, which tests of the loaders do not need.


@pytest.fixture(scope="session")
def encoder(tmp_path_factory) -> Path:
    """An encoder to start from. Not to be changed."""
    from tiny import write_encoder

    return write_encoder(tmp_path_factory.mktemp("models") / "encoder")


@pytest.fixture(scope="session")
def good_corpus(tmp_path_factory) -> Path:
    """A folder corpus without a fault. Not to be changed."""
    from tiny import write_corpus

    return write_corpus(tmp_path_factory.mktemp("corpora") / "good")


@pytest.fixture(scope="session")
def finished(good_corpus, encoder, tmp_path_factory) -> Path:
    """The folder of a finished run of stage 1, of two epochs on `good_corpus`. Not to be changed."""
    from tiny import run_flags, run_script

    output = tmp_path_factory.mktemp("runs") / "stage1"
    ended = run_script("run_stage1", run_flags(good_corpus, output, encoder=encoder))
    assert ended.code == 0, ended.stderr
    return output
