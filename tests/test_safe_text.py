"""Text of others is one line on a terminal, the same text in Markdown, and the same cell in a spreadsheet."""

import csv
from io import StringIO

import pytest
from helpers.markup import HOSTILE, elements
from markdown_it import MarkdownIt
from markupsafe import Markup

from ser_mtl.corpora.folder import read_folder
from ser_mtl.corpora.summary import corpus_tables
from ser_mtl.errors import UserError
from ser_mtl.evaluation.results import results_table
from ser_mtl.inference.formats import FORMATS
from ser_mtl.safe_text import csv_line, markdown, printable, unguarded

NAMES = [
    "anna_01",
    "=1+1",
    "+x",
    "-x",
    "@x",
    "'=x",
    "''-x",
    "'s",
    'a "b", c',
    "a\nb",
    "a\rb",
    "\t=x",
    "=a\r\nb",
    "",
    "Ż'=?",
]


@pytest.mark.parametrize("control", ["\x1b[2J", "\r", "\n", "\x9b1m", "\x07", "\u202e", "\u2028", "\udc80", "\x00"])
def test_a_control_character_is_spelled_out_on_a_terminal(control):
    assert printable(f"a{control}b").isprintable() and printable(f"a{control}b")[0] == "a"
    assert str(UserError(f"a{control}b")) == printable(f"a{control}b")


def test_other_characters_stay_on_a_terminal():
    text = "Żółw 漢字 می‌خواهم 👩‍🚀 \\n 'x'"
    assert printable(text) == text == printable(printable(text))


@pytest.mark.parametrize(
    "text", [HOSTILE, *NAMES[:7], "www.evil.org http://evil.org", "~~x~~ `x` **x** \\| \\", "&lt;"]
)
@pytest.mark.parametrize("form", ["{}", "# {}", "- {}", "| a |\n|---|\n| {} |"])
def test_markdown_shows_the_text_and_nothing_else(text, form):
    parser = MarkdownIt("gfm-like", {"html": True, "linkify": False})
    found, shown = elements(parser.render(form.format(markdown(text))))
    expected, _ = elements(parser.render(form.format("x")))
    assert found == expected
    assert printable(text).strip() in shown


def test_markdown_that_is_markdown_already_stays():
    assert markdown(Markup("**x**")) == "**x**" == markdown(markdown(Markup("**x**")))


def test_a_row_of_csv_is_read_back_as_it_was():
    text = csv_line(NAMES) + "\n"
    (row,) = csv.reader(StringIO(text, newline=""))
    assert [unguarded(cell) for cell in row] == NAMES
    assert not [cell for cell in row if cell[:1] in tuple("=+-@\t\r")]


def test_no_table_on_the_terminal_has_a_control_character(tmp_path):
    name = "a\x1b[31m\x9b\u202e"
    (tmp_path / f"{name}.wav").touch()
    rows = [f'"{name}.wav",{name},{name},{name},{name},{name}', f"b.wav,{name.upper()},{name},{name},{name} ,b"]
    (tmp_path / "b.wav").touch()
    columns = "file_name,emotion,gender,style,text,speaker"
    (tmp_path / "metadata.csv").write_text("\n".join([columns, *rows]) + "\n", encoding="utf-8")
    tables = [corpus_tables(read_folder([tmp_path]), fold=1, dev="none")]
    scores = {"n": 1, "emotion": {"ua": 1.0, "wa": 1.0, "macro_f1": 1.0}}
    tables.append(results_table({"test": {"all": scores, name: scores}}))
    for table in tables:
        assert "a\\x1b[31m" in table and table.replace("\n", "").isprintable()


@pytest.mark.parametrize("form", list(FORMATS))
def test_no_format_of_answers_prints_a_control_character(form):
    name = "a\x1b[31m\x9b\x7f.wav"
    part = {"label": "sad\x1b[0m", "probability": 1.0, "probabilities": {"sad\x1b[0m": 1.0}}
    answer = {"duration": 1.0, "emotion": part, "transcript": "=cmd\x1b]0;x\x07"}
    lines = list(FORMATS[form]([(name, answer)], {"emotion": ["sad\x1b[0m"]}))
    assert all(line.isprintable() for line in lines) and any("a" in line for line in lines)
