"""Files are written whole or not at all; a file that cannot be read is one line that names it."""

import json
import os
from pathlib import Path

import pytest
from typing_extensions import TypedDict

from ser_mtl import files
from ser_mtl.errors import UserError
from ser_mtl.files import read_bytes, read_json, read_json_lines, replacing, write_json, write_json_lines, write_text
from ser_mtl.hub.completion import read_completion


class Results(TypedDict):
    test: dict[str, dict[str, str]]
    n: list[float | None]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "results.json"
    write_json(path, {"ua": 0.5})
    with pytest.raises(KeyboardInterrupt), replacing(path) as partial:
        partial.write_text("{")
        raise KeyboardInterrupt
    with pytest.raises(TypeError):
        write_json(path, {"ua": object()})
    assert list(tmp_path.iterdir()) == [path]
    assert json.loads(path.read_text()) == {"ua": 0.5}


@pytest.mark.parametrize("kind", [Path.touch, Path.mkdir])
def test_what_a_killed_program_left_is_in_nobodys_way(tmp_path, kind):
    kind(tmp_path / ".partial.e")
    with replacing(tmp_path / "e") as partial:
        partial.mkdir()
    assert [path.name for path in tmp_path.iterdir()] == ["e"]


def test_a_write_replaces_the_file_and_creates_its_folder(tmp_path):
    path = tmp_path / "run" / "notes.txt"
    write_text(path, "old")
    write_text(path, "nowy ł")
    assert list(path.parent.iterdir()) == [path]
    assert path.read_text(encoding="utf-8") == "nowy ł"


def test_json_is_read_as_it_was_written(tmp_path):
    content = {"test": {"all": {"text": "zażółć\u2028 \n"}}, "n": [1, 2.5, None]}
    write_json(tmp_path / "a.json", content)
    assert read_json(tmp_path / "a.json", Results) == content
    write_json(tmp_path / "b.json", [content])
    assert read_json(tmp_path / "b.json", list) == [content]
    write_json_lines(tmp_path / "c.jsonl", [content, []])
    assert read_json_lines(tmp_path / "c.jsonl", dict | list) == [content, []]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, "is missing"),
        ("", "is damaged: Expecting value"),
        ('{"test":', "is damaged: Expecting value"),
        (b"\xff", "is damaged: "),
        ("[]", "is damaged: it holds no object"),
        ("null", "is damaged: it holds no object"),
        ("{}", 'is damaged: it has no "test"'),
        ('{"test": []}', 'is damaged: "test" must be a valid dictionary, not []'),
        ('{"test": {"all": {"a": 1}}, "n": []}', 'is damaged: "test.all.a" must be a valid string, not 1'),
        ('{"test": {}, "n": [true]}', 'is damaged: "n.0" must be a valid number, not true'),
        ('{"test": {}, "n": {}}', 'is damaged: "n" must be a valid list, not {}'),
        (f'{{"test": {{"all": {{"a": "{"x" * 99}\\ud800"}}}}, "n": []}}', "is damaged: 'utf-8' codec can't encode"),
        ("[" * 100_000, "is damaged: too many brackets in one another"),
        ("1" * 5000, "is damaged: it holds no object"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_line(tmp_path, text, reason):
    path = tmp_path / "results.json"
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError) as refused:
        read_json(path, Results)
    assert str(refused.value).startswith(f"{path}: {reason}") and "\n" not in str(refused.value)


def test_an_array_is_not_an_object_nor_half_a_line_a_line(tmp_path):
    (tmp_path / "a.json").write_text("{}")
    with pytest.raises(UserError, match="it holds no array"):
        read_json(tmp_path / "a.json", list)
    (tmp_path / "b.jsonl").write_text('{"id": 1}\n{"id"')
    with pytest.raises(UserError, match=r"b\.jsonl: is damaged"):
        read_json_lines(tmp_path / "b.jsonl")


def test_numbers_that_json_does_not_know_are_null(tmp_path):
    (tmp_path / "a.json").write_text("[NaN, Infinity, -Infinity, 1e999, 123456789012345678901234567890, 1.5, 7]")
    assert read_json(tmp_path / "a.json", list) == [None, None, None, None, None, 1.5, 7]


def test_a_folder_a_device_and_a_huge_file_are_not_read(tmp_path, monkeypatch):
    for path in (tmp_path, "/dev/zero"):
        with pytest.raises(UserError, match="is a folder or a device"):
            read_json(path)
    os.mkfifo(tmp_path / "pipe.json")
    with pytest.raises(UserError, match=r"pipe\.json: is a folder or a device"):
        read_json(tmp_path / "pipe.json")
    monkeypatch.setattr("ser_mtl.files._LARGEST", 10)
    write_json(tmp_path / "a.json", {"much": "text"})
    with pytest.raises(UserError, match=r"a\.json: is larger than"):
        read_json(tmp_path / "a.json")


def test_a_pipe_a_device_or_a_file_of_gigabytes_is_not_read(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(OSError, match="a pipe or a device"):
            read_bytes(path)
    (tmp_path / "large").write_bytes(b"12")
    monkeypatch.setattr(files, "_LARGEST", 1)
    with pytest.raises(OSError, match="larger than"):
        read_bytes(tmp_path / "large")
    with pytest.raises(UserError, match=r"--card .*pipe: cannot be read"):
        read_completion(None, None, None, tmp_path / "pipe")
