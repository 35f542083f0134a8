"""Pins that an output which cannot be written is one line and exit code 2, in every program; a closed pipe is none."""

import errno
import importlib
import os
import resource
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from functools import partial
from io import StringIO
from pathlib import Path

import pytest
from helpers.tiny import contents, run_flags, run_script
from safetensors import SafetensorError

from data import iemocap_loader
from ser_mtl import cli
from ser_mtl.errors import system_error
from ser_mtl.files import write_text, writing
from ser_mtl.lock import lock, release

PROGRAMS = ["corpus", "predict", "publish", "export", "run_stage1", "run_stage2", "run_tables", "iemocap_loader"]


def ended(program: str, words: list, output, monkeypatch) -> tuple[int, str]:
    """Exit code and standard error of a program whose standard output is `output`."""
    main = partial(cli.run, program, list(map(str, words)))
    if program == "iemocap_loader":
        main = iemocap_loader.main
    elif program.startswith("run_"):
        main = importlib.import_module(program).main
    stderr = StringIO()
    with monkeypatch.context() as patch, redirect_stderr(stderr), pytest.raises(SystemExit) as stop:
        patch.setattr(sys, "stdout", output)
        patch.setattr(sys, "argv", [program, *map(str, words)])
        cli.command_line(main, program)
    return stop.value.code, stderr.getvalue()


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("buffering", [1, -1])
def test_a_full_device_is_one_line(program, buffering, monkeypatch):
    with open("/dev/full", "w", buffering=buffering) as full:
        code, said = ended(program, ["--help"], full, monkeypatch)
    assert (code, said.count("\n")) == (2, 1)
    assert said.startswith(f"{program}: standard output: No space left on device; free some space")


def test_a_full_device_is_one_line_after_work_too(good_corpus, monkeypatch):
    with open("/dev/full", "w") as full:
        code, said = ended("corpus", [good_corpus], full, monkeypatch)
    assert (code, said.count("\n")) == (2, 1) and "standard output: No space left" in said


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_reader_that_has_gone_is_no_error(program, monkeypatch):
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as pipe:
        assert ended(program, ["--help"], pipe, monkeypatch) == (1, "")


def test_standard_output_that_is_closed_is_no_error(good_corpus, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", None)
        cli.command_line(partial(cli.run, "corpus", [str(good_corpus)]), "ser-mtl corpus")


@contextmanager
def no_file_above(size: int) -> Iterator[None]:
    """Let each write beyond these bytes of a file fail."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_lock_on_a_full_disk_is_named_and_not_left(tmp_path):
    with no_file_above(0), pytest.raises(OSError, match=r"\.lock"):
        lock(tmp_path)
    assert list(tmp_path.iterdir()) == []
    lock(tmp_path)
    release(tmp_path)


@pytest.mark.parametrize("bytes_a_file", [10, 3000, 100_000, 200_000])
def test_a_disk_that_is_full_in_training_is_one_line(good_corpus, encoder, finished, tmp_path, bytes_a_file):
    """The limit of a file's size fails as a full disk does, in Python, in torch and in safetensors."""
    with no_file_above(bytes_a_file):
        stopped = run_script("run_stage1", run_flags(good_corpus, tmp_path / "out", encoder=encoder))
    ours = [line for line in stopped.stderr.splitlines() if line.startswith("run_stage1.py: ")]
    assert (stopped.code, len(ours)) == (2, 1) and "Traceback" not in stopped.stderr
    place = tempfile.gettempdir() if bytes_a_file == 10 else tmp_path / "out"  # where a tokenizer is made
    assert stopped.stderr.endswith(f"{ours[0]}\n") and f"{place}" in ours[0]
    assert not [name for name in contents(tmp_path) if "partial" in name]
    if bytes_a_file == 200_000:
        again = run_script("run_stage1", run_flags(good_corpus, tmp_path / "out", encoder=encoder))
        assert again.code == 0, again.stderr


@pytest.mark.parametrize(
    ("error", "number"),
    [
        (SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"), errno.ENOSPC),
        (RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 88256 vs 88144"), errno.EIO),
        (RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed"), errno.EIO),
        (OSError(errno.ENOSPC, "No space left on device"), errno.ENOSPC),
    ],
    ids=str,
)
def test_the_error_of_a_disk_names_the_file(error, number, tmp_path):
    with pytest.raises(OSError, match="") as caught, writing(tmp_path / "model"):
        raise error
    assert (caught.value.errno, caught.value.filename) == (number, str(tmp_path / "model"))


def test_errors_of_a_program_are_no_errors_of_a_disk(tmp_path):
    with pytest.raises(RuntimeError, match="shape"), writing(tmp_path / "model"):
        raise RuntimeError("shape mismatch")


def test_the_error_of_a_copy_names_what_is_written():
    error = OSError(errno.ENOSPC, "No space left on device", "code.py", None, "/full/code.py")
    assert (system_error(error) or "").startswith("/full/code.py: No space left on device; free some space")


def test_a_file_without_a_right_is_one_line(monkeypatch, capsys):
    def main() -> None:
        write_text(Path("/proc/nothing/x"), "text")

    with pytest.raises(SystemExit) as stop:
        cli.command_line(main, "program")
    assert stop.value.code == 2
    assert capsys.readouterr().err.startswith("program: /proc/nothing: ")
