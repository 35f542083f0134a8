"""Pins that pages and tables of others are one line each where they are wrong, and never take for ever."""

import os
from pathlib import Path

import pytest
from helpers.described_trees import write_names

from ser_mtl.corpora import patterns
from ser_mtl.corpora.loading import load_corpus, read_corpus
from ser_mtl.errors import UserError

OWN = 'audio = "{emotion}/{speaker:a}_{number:d}"'


def own(tmp_path: Path, page: str, names: list[str]) -> tuple[str, Path]:
    (tmp_path / "calls.toml").write_text(page)
    return str(tmp_path / "calls.toml"), write_names(tmp_path / "calls", names)


@pytest.mark.parametrize(
    ("page", "said"),
    [
        ("title = 3", '"title" must be a valid string'),
        ("audio = []", "another form"),
        ('odd = ""\nid = 3', '"id" must be a valid string'),
        ("[columns]\nemotion = [3]", "another form"),
        ("[[counts]]\nspeakers = 2", 'no "counts.0.utterances"'),
        ('[[counts]]\nutterances = "two"', "another form"),
        ("counts = [3]", "another form"),
        ("[[counts]]\nutterances = 1\n[counts.mood]\nx = 1", "mood.*no column"),
        ('other_editions = "no"', "another form"),
        ("odd = 2020-01-01", "another form"),
        ("a = " + "[" * 20_000, "is not valid TOML"),
        ('audio = "{1a}"', "is not a valid regular expression"),
        ('audio = "{a:99999999999}"', "is not a part"),
        ('[[tables]]\nfiles = "x"\naudio = "{a}"\nline = "x{99999999999}"', "is not a valid regular expression"),
        ('[[tables]]\nfiles = "x"\naudio = "{a}"\nencoding = 3', "another form"),
        ('[[tables]]\nfiles = "x"\naudio = "{a}"\nfields = 3', "another form"),
    ],
)
def test_a_value_of_another_form_is_named_with_its_page(tmp_path, page, said):
    name, root = own(tmp_path, page, ["x.wav"])
    with pytest.raises(UserError, match=said) as error:
        load_corpus(name, root)
    assert "calls.toml" in str(error.value)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("l.csv", "clip,emotion,emotion\na,sad,angry\n", "has the column 'emotion' twice"),
        ("l.csv", "clip,emotion\na,sad\na,angry\n", "a.wav has two rows, with emotion 'sad' and 'angry'"),
        ("l.csv", b"clip,emotion\na,\xe9\n", "encoding 'undefined' is none"),
        ("l.json", "[" * 100_000, "is not valid JSON"),
        ("l.json", '[{"clip": "a", "emotion": "\\ud800"}]', "is not valid JSON"),
        ("l.csv", 'clip,emotion\n"a,sad\n"b",angry\n', "is not a table .*expected after"),
        ("l.csv", None, "cannot be read .a pipe or a device"),
    ],
)
def test_a_table_that_cannot_be_read_or_contradicts_itself_is_named(tmp_path, name, content, said):
    page = f'[[tables]]\nfiles = "{name}"\naudio = "{{clip}}"\nencoding = "undefined"\n[columns]\nspeaker = "x"\n'
    page, root = own(tmp_path, page, ["a.wav", "b.wav"])
    if content is None:
        os.mkfifo(root / name)
    else:
        (root / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=said):
        load_corpus(page, root)


def test_a_pipe_in_the_place_of_a_page_or_a_recording_ends(tmp_path):
    page, root = own(tmp_path, OWN, ["angry/anna_3.wav", "sad/ben_1.wav"])
    os.mkfifo(root / "sad/ben_2.wav")
    assert len(load_corpus(page, root)) == 3  # reading it is refused later
    os.mkfifo(tmp_path / "pipe.toml")
    with pytest.raises(UserError, match="a pipe or a device"):
        load_corpus(str(tmp_path / "pipe.toml"), root)


def test_a_pattern_or_key_that_takes_all_memory_is_named(tmp_path):
    for expression in ("(((a{1000}){1000}){1000})", "a{1000000000}", "(?x)((a{999}) {999})(?#c){9}"):
        with pytest.raises(UserError, match="its repetitions make it too large"):
            patterns.Pattern(expression, expression)
    assert patterns.Pattern("", r"(\d{4}-[)]{2}){9}a{0,4000000000}").fullmatch("1234-))" * 9)
    page, root = own(tmp_path, "a." * 1000 + "a = 1", ["a.wav"])
    with pytest.raises(UserError, match="more than 200 dots"):
        load_corpus(page, root)


def test_names_and_cells_that_are_not_utf_8_stop_nothing(tmp_path):
    page = '[[tables]]\nfiles = "t.csv"\naudio = "{clip}"\nencoding = "unicode_escape"\n[columns]\ntext = "{said}"\n'
    page, root = own(tmp_path, page, ["a.wav", "b.wav"])
    (root / "t.csv").write_bytes(b"clip,said,speaker\na,\\ud800,x\nb,\xff,y\n")
    (root / os.fsdecode(b"\xff.wav")).write_bytes(b"")
    reading = read_corpus(page, root)
    assert reading.corpus["text"][:] == ["\\ud800", "ÿ"]
    assert any("files have names that are not UTF-8" in line for line in reading.left_out)


def test_a_pattern_that_takes_for_ever_is_named(monkeypatch):
    monkeypatch.setattr(patterns, "_SECONDS", 0.01)
    with pytest.raises(UserError, match=r"pattern '\(a\|aa\)\+b': takes longer than 0.01 seconds"):
        patterns.Pattern("(a|aa)+b", "(a|aa)+c(?P<x>x)").fullmatch("a" * 60 + "cy")
