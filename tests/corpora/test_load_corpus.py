"""Pins `load_corpus`: names, default folders, and that heavy libraries are imported only when needed."""

import subprocess
import sys
from pathlib import Path

import pytest
from datasets import Dataset
from helpers.iemocap_tree import write_tree

from ser_mtl.corpora import load_corpus
from ser_mtl.corpora.folder import read_folder
from ser_mtl.errors import UserError

ROOT = Path(__file__).parents[2]


def write_folder(folder: Path) -> Path:
    folder.mkdir()
    for name in "ab":
        (folder / f"{name}.wav").touch()
    (folder / "metadata.csv").write_text("file_name,speaker,emotion\nb.wav,y,sad\na.wav,x,angry\n")
    return folder


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("corpus")
    write_tree(root)
    return root


def run_python(code: str, *argv: object) -> str:
    command = [sys.executable, "-c", code, *map(str, argv)]
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout


def test_importing_the_corpora_imports_no_library():
    code = "import sys, ser_mtl.corpora; print(*{'datasets', 'numpy', 'torch', 'transformers'} & set(sys.modules))"
    assert run_python(code) == "\n"


def test_a_program_that_a_notebook_started_draws_without_the_notebooks_backend(monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    code = "import sys; sys.modules['matplotlib_inline'] = None; import ser_mtl, matplotlib; print('drawn')"
    assert run_python(code) == "drawn\n"


def test_a_folder_is_loaded_without_torch(tmp_path):
    code = (
        "import sys; from ser_mtl.corpora import load_corpus; corpus = load_corpus('folder', sys.argv[1]); "
        "print(corpus['id'][:], *{'torch', 'transformers'} & set(sys.modules))"
    )
    assert run_python(code, write_folder(tmp_path / "mine")) == "['a.wav', 'b.wav']\n"


def test_a_folder_is_one_path_or_a_list_of_several(tmp_path):
    one, two = write_folder(tmp_path / "one"), write_folder(tmp_path / "two")
    for data_dir in (one, str(one), [one], [str(one)]):
        assert load_corpus("folder", data_dir).to_list() == read_folder([one]).to_list()
    assert load_corpus("folder", [two, one]).to_list() == read_folder([one, two]).to_list()


def test_the_same_name_in_two_folders_is_one_person_unless_distinct(tmp_path):
    folders = [write_folder(tmp_path / "one"), write_folder(tmp_path / "two")]
    assert set(load_corpus("folder", folders)["speaker"]) == {"x", "y"}
    assert len(set(load_corpus("folder", folders, distinct_speakers=True)["speaker"])) == 4


def test_iemocap_is_found_by_data_dir_then_variable_then_name(tree, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("IEMOCAP_DIR", raising=False)
    with pytest.raises(UserError, match=f"{tmp_path}/IEMOCAP_full_release: no IEMOCAP here"):
        load_corpus("iemocap")
    monkeypatch.setenv("IEMOCAP_DIR", str(tree))
    by_variable = load_corpus("iemocap", check_counts=False)
    assert len(by_variable) == 400
    monkeypatch.setenv("IEMOCAP_DIR", str(tmp_path))
    assert load_corpus("iemocap", tree, check_counts=False).to_list() == by_variable.to_list()


def test_the_counts_of_iemocap_are_checked_unless_turned_off(tree):
    with pytest.raises(UserError, match="Session1 neutral: 384 expected, 16 found"):
        load_corpus("iemocap", tree)


def test_the_demo_is_in_data_dir_or_else_in_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in ("runs/demo/corpus", "mine"):
        Path(folder).mkdir(parents=True)
        Path(folder, "notes.txt").write_text("not a demo corpus")
    with pytest.raises(UserError, match=f"^{tmp_path}/runs/demo/corpus: exists and is not a demo corpus"):
        load_corpus("demo")
    with pytest.raises(UserError, match=f"^{tmp_path}/mine: exists and is not a demo corpus"):
        load_corpus("demo", "mine")


def test_a_dataset_is_completed(tmp_path):
    folder = write_folder(tmp_path / "mine")
    dataset = Dataset.from_dict({"file_name": ["b.wav", "a.wav"], "speaker": ["y", "x"]})
    assert load_corpus(dataset, folder)["path"][:] == [str(folder / "a.wav"), str(folder / "b.wav")]


@pytest.mark.parametrize(
    ("name", "data_dir", "said"),
    [
        ("iemocapp", None, "corpus 'iemocapp': must be one of iemocap, folder, demo, crema-d"),
        ("folder", None, "corpus folder needs --data_dir"),
        ("folder", [], "corpus folder needs --data_dir"),
        ("iemocap", ["a", "b"], "data_dir: only corpus folder joins several folders"),
        ("demo", ["a", "b"], "data_dir: only corpus folder joins several folders"),
    ],
)
def test_a_wrong_name_or_data_dir_is_refused(name, data_dir, said):
    with pytest.raises(UserError, match=said):
        load_corpus(name, data_dir)
