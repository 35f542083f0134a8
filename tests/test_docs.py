"""Pins the documentation: its length, its links, its figures, its words, and that its examples parse."""

import ast
import re
from pathlib import Path

import pytest
from helpers.tiny import ROOT

from ser_mtl.corpora.description import DESCRIBED, read_description
from ser_mtl.corpora.loading import CORPORA

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
FIGURES = [path for path in (ROOT / "docs").rglob("*") if path.suffix in (".png", ".jpg", ".svg", ".gif")]
LANGUAGES = {"python", "bash", "console", "text", "csv", "yaml", "diff", "bibtex", "math"}
"""Of code blocks. Blocks in python and bash run as they are written; console ones need a licence, GPUs or a token."""
STIFF = (
    "is told", "it goes on from", "beside", "of which", "whose it is", "in their place", "surer", "to their end",
    "the words alone", "heard before", "how far a listener", "figures of", "one after the other", "picture",
)  # fmt: skip
"""Phrases that read as if translated, or a second word for one thing: a metric is a score, an image is a figure."""


def blocks(text: str) -> list[tuple[str, str]]:
    """Language and content of each fenced code block."""
    return re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def prose(text: str) -> str:
    """A page without its code, on lines and in blocks."""
    text = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"`[^`\n]*`", "", text)


def anchors(text: str) -> set[str]:
    """The anchors that GitHub gives to the headings of a page."""
    text = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(page: Path) -> list[str]:
    """The relative links of a page that lead to no file, or to no heading of that file."""
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(page.read_text(encoding="utf-8"))):
        name, _, anchor = link.partition("#")
        if "://" in name:
            continue
        target = page.parent / name if name else page
        found = target.exists() and (not anchor or anchor in anchors(target.read_text(encoding="utf-8")))
        broken += [] if found else [link]
    return broken


def test_the_readme_fits_in_180_lines_and_a_page_in_200():
    lines = {path.name: len(path.read_text(encoding="utf-8").splitlines()) for path in PAGES}
    assert lines["README.md"] <= 180
    assert {name: count for name, count in lines.items() if count > 200} == {}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_and_headings(page):
    assert broken_links(page) == []


def test_a_link_to_a_missing_file_or_heading_is_found(tmp_path):
    (tmp_path / "other.md").write_text("# Title\n\n## SCL_norm, until it converges\n")
    page = tmp_path / "page.md"
    page.write_text(
        "## Here\n[1](other.md#scl_norm-until-it-converges) [2](#here) [3](#there) [4](other.md#x) [5](no.md)"
    )
    assert broken_links(page) == ["#there", "other.md#x", "no.md"]


def test_every_page_is_in_the_table_of_contents():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [page.name for page in (ROOT / "docs").glob("*.md") if f"docs/{page.name}" not in readme] == []


def test_figures_are_less_than_a_megabyte_and_each_is_shown():
    assert sum(path.stat().st_size for path in FIGURES) < 1_000_000
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    assert [path.name for path in FIGURES if path.name not in text] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_stiff_phrases(page):
    text = " ".join(prose(page.read_text(encoding="utf-8")).lower().split())
    assert [phrase for phrase in STIFF if phrase in text] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_code_blocks_have_a_language_and_python_parses(page):
    for language, code in blocks(page.read_text(encoding="utf-8")):
        assert language in LANGUAGES
        if language == "python":
            ast.parse(code)


def test_the_page_on_corpora_has_a_row_for_each_with_its_counts():
    page = (ROOT / "docs/corpora.md").read_text(encoding="utf-8")
    rows = {name: line for line in page.splitlines() for name in re.findall(r"^\| `--corpus ([\w-]+)", line)}
    assert rows.keys() == set(CORPORA) - {"demo"}
    for name in DESCRIBED:
        description, row = read_description(name), rows[name]
        assert description.address.split(" ")[0] in row
        for count in description.counts[:1]:
            assert f"{count['utterances']:,}; {count.get('speakers', '')}" in row, name
            assert f"; {len(count.get('emotion', ())) or ''}" in row, name
