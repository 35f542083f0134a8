"""A short form of `kills.py`; docs/reliability.md has the figures of a long one."""

import subprocess
from pathlib import Path


def test_killed_runs_end_as_the_undisturbed_one(python):
    command = [python, Path(__file__).with_name("kills.py"), "--kills", "5", "--cases", "0"]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "| 5 |" in ended.stdout  # so many kills


def test_killed_annotations_end_as_the_undisturbed_one(python):
    program = [python, Path(__file__).with_name("annotate_kills.py"), "--processes", "1"]
    ended = subprocess.run(
        [*program, "--clips", "40", "--kills", "2", "--shard_files", "5"], capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "| kills | 2 |" in ended.stdout and "| not the same | 0 |" in ended.stdout
