"""Pins the program that checks a copy of IEMOCAP: counts next to expected ones, a folder corpus, one-line errors."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.iemocap_tree import write_tree

from ser_mtl.corpora import load_corpus
from ser_mtl.corpora.iemocap import load_iemocap

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("corpus") / "IEMOCAP_full_release"
    write_tree(root)
    return root


def run_program(python: str, cwd: Path, *argv: object) -> subprocess.CompletedProcess:
    """Run the program in `cwd`. PYTHONPATH stands in for an installed package."""
    command = [python, str(ROOT / "data/iemocap_loader.py"), *map(str, argv)]
    return subprocess.run(command, cwd=cwd, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)


def error_line(ended: subprocess.CompletedProcess) -> str:
    assert ended.returncode == 2
    lines = [line for line in ended.stderr.splitlines() if line.startswith("iemocap_loader.py: ")]
    assert ended.stderr.splitlines() == lines and "Traceback" not in ended.stderr
    assert all("latin-1" in line or "no transcript" in line for line in lines[:-1])  # notices
    return lines[-1]


def test_a_partial_copy_is_compared_with_the_release_and_refused(tree, tmp_path):
    ended = run_program(sys.executable, tmp_path, tree)
    rows = [" ".join(line.split()) for line in ended.stdout.splitlines()]
    assert "1 16 / 384 32 / 278 16 / 229 16 / 194 80 / 1085" in rows
    assert "all 80 / 1708 160 / 1636 80 / 1103 80 / 1084 400 / 5531" in rows
    assert "improvised 200 0.00 10" in rows
    line = error_line(ended)
    assert "Session1 neutral: 384 expected, 16 found" in line and "--no_check_counts" in line


def test_a_copy_is_written_as_a_folder_corpus(python, tree):
    ended = run_program(python, tree, ".", "--no_check_counts", "--write", "metadata.csv")
    assert ended.returncode == 0, ended.stderr
    assert "Written to metadata.csv" in ended.stdout
    written = load_corpus("folder", tree)
    assert len(written) == 400
    error_line(run_program(python, tree, ".", "--no_check_counts", "--write", "metadata.csv"))  # it exists now
    (tree / "metadata.csv").unlink()


@pytest.mark.parametrize(
    ("argv", "said"),
    [([], "data_dir"), (["nowhere"], "nowhere: no IEMOCAP here"), (["nowhere", "--fold", "1"], "--fold 1")],
)
def test_a_mistake_is_one_line(python, tmp_path, argv, said):
    ended = run_program(python, tmp_path, *argv)
    assert said in error_line(ended)
    assert ended.stderr.count("\n") == 1


def test_load_iemocap_can_be_imported():
    code = "from data.iemocap_loader import load_iemocap; print(load_iemocap.__module__)"
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ended.stdout == f"{load_iemocap.__module__}\n"
