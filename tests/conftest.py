"""Settings of every test: a Hub on loopback, one thread, caches in a folder that goes when the tests end.

Set before any library reads them, and inherited by the processes that tests start. And what tests of whole runs share.
"""

import gc
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.hub_server import HubServer

os.environ.setdefault("SER_MTL_FUZZ_SEED", str(random.randrange(10**6)))  # the processes of the suite share it
_CACHE = tempfile.TemporaryDirectory(prefix="ser-mtl-tests-")
_HUB = HubServer()
_HUB.tokens["hf_made_up_of_ada"] = "ada"
_HUB.tokens["hf_made_up_of_bob"] = "bob"

for name in ("HF_HUB_OFFLINE", "HF_HUB_CACHE", "TRANSFORMERS_CACHE"):
    os.environ.pop(name, None)
os.environ["HF_DATASETS_CACHE"] = _CACHE.name
os.environ["HF_HOME"] = _CACHE.name + "/home"
os.environ["HF_ENDPOINT"] = _HUB.url
os.environ["HF_TOKEN"] = "hf_made_up_of_ada"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "True"  # as Gradio sets it, so that importing it changes nothing
os.environ["HF_HUB_DISABLE_XET"] = "1"  # else the client would want a Xet store, which the test Hub is not
os.environ.setdefault("OMP_NUM_THREADS", "1")

pytest.register_assert_rewrite("helpers.tiny")  # it asserts for the tests


def pytest_report_header() -> str:
    """What repeats the random inputs of tests/fuzz."""
    return f"SER_MTL_FUZZ_SEED={os.environ['SER_MTL_FUZZ_SEED']}"


_LONGEST = (
    "test_fuzz.py",
    "test_publishing.py",
    "test_loading.py",
    "test_launch.py",
    "test_examples.py",
    "test_interrupted.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take the longest, so that no process is left alone with one at the end."""
    items.sort(key=lambda item: item.path.name not in _LONGEST)


def pytest_collection_finish() -> None:
    """Keep the imported modules out of garbage collections: a training makes several, of a third of a second each."""
    gc.freeze()


# `helpers.tiny` is imported where it is used: it takes seconds, which tests of the loaders do not need.


@pytest.fixture(scope="session")
def hub_server() -> HubServer:
    """The Hub. Its user is ada."""
    return _HUB


@pytest.fixture
def hub(hub_server) -> HubServer:
    """The Hub, without any repository."""
    hub_server.clear()
    return hub_server


@pytest.fixture(scope="session")
def wheel(tmp_path_factory) -> Path:
    """A wheel of the package, built of a copy of the checkout without the network."""
    from helpers.tiny import ROOT

    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    ignore = shutil.ignore_patterns(".*", "runs", "tests", "docs", "benchmarks", "*.egg-info", "build", "__pycache__")
    shutil.copytree(ROOT, source, ignore=ignore)
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        folder,
        source,
    ]
    subprocess.run(command, check=True)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="session")
def python(tmp_path_factory) -> Iterator[str]:
    """Stands for `sys.executable`, without the seconds of the imports; see `helpers.preloaded`."""
    from helpers import preloaded

    with preloaded.python(tmp_path_factory.mktemp("python")) as program:
        yield program


@pytest.fixture(scope="session")
def encoder(tmp_path_factory) -> Path:
    """An encoder to start from. Not to be changed."""
    from helpers.tiny import write_encoder

    return write_encoder(tmp_path_factory.mktemp("models") / "encoder")


@pytest.fixture(scope="session")
def good_corpus(tmp_path_factory) -> Path:
    """A folder corpus without a fault. Not to be changed."""
    from helpers.tiny import write_corpus

    return write_corpus(tmp_path_factory.mktemp("corpora") / "good")


@pytest.fixture(scope="session")
def finished(good_corpus, encoder, tmp_path_factory) -> Path:
    """The folder of a finished run of stage 1, of two epochs on `good_corpus`. Not to be changed."""
    from helpers.tiny import run_flags, run_script

    output = tmp_path_factory.mktemp("runs") / "stage1"
    ended = run_script("run_stage1", run_flags(good_corpus, output, encoder=encoder))
    assert ended.code == 0, ended.stderr
    return output


@pytest.fixture(scope="session")
def finished2(good_corpus, finished, tmp_path_factory) -> Path:
    """The folder of a finished run of stage 2, of two epochs on top of `finished`. Not to be changed."""
    from helpers.tiny import run_flags, run_script

    output = tmp_path_factory.mktemp("runs") / "stage2"
    ended = run_script("run_stage2", run_flags(good_corpus, output, stage1=finished, learning_rate=1e-3))
    assert ended.code == 0, ended.stderr
    return output
