"""A report of hostile names: they are text in every place, and the page embeds no file that the report did not draw."""

import json
from pathlib import Path

import pytest
from helpers.finished_runs import LABELS, write_runs
from helpers.markup import HOSTILE, elements
from markdown_it import MarkdownIt

from ser_mtl.files import write_json
from ser_mtl.safe_text import printable
from ser_mtl.tables.plan import choose_rows, plan
from ser_mtl.tables.report import _environment, as_page, write_report

NAME = "a plain name"
SECRET = b"the secret of another file"


def report_of(folder: Path, name: str) -> tuple[list[str], str]:
    """The elements of a report in which `name` stands wherever a name of others can, and the text that it shows."""
    runs = plan(choose_rows([], ["t1-full-ser"], []), [1], [0], folder)
    write_runs(runs, {}, corpus="folder")
    for run in runs:
        args = json.loads((run.folder / "args.json").read_text())
        args["corpus"] |= {"data_dir": [name], "dev": name}
        args["training"] |= {"learning_rate": name, "batch_size": name}
        write_json(run.folder / "args.json", args)
        results = json.loads((run.folder / "results.json").read_text())
        results |= {"encoder": name, "commit": name, "versions": {name: name}, "selection": name}
        results["test"][name] = results["test"].pop("scripted")
        results["leaks"] = {"near_duplicates": {name: {"n": 5, "share": 0.5}}}
        results["test"]["all"]["emotion"]["labels"] = [name, *LABELS["emotion"][1:]]
        write_json(run.folder / "results.json", results)
        rows = (run.folder / "predictions.jsonl").read_text().replace('"angry"', json.dumps(name))
        rows = rows.replace('"scripted"', json.dumps(name)).replace('"fold1-0"', json.dumps(name))
        (run.folder / "predictions.jsonl").write_text(rows)
    rows = [json.loads(line) for line in rows.splitlines()]
    write_json(folder / "baselines.json", {"text_only": rows, "ceiling": None})
    write_report(folder, runs, f"python run_tables.py --data_dir '{name}'")
    return elements((folder / "report.html").read_text())


@pytest.mark.filterwarnings("ignore:Glyph")
def test_names_of_others_are_text_wherever_they_stand(tmp_path):
    plain, shown = report_of(tmp_path / "plain", NAME)
    places = shown.count(NAME)
    assert places > 10
    found, shown = report_of(tmp_path / "hostile", HOSTILE)
    assert sorted(found) == sorted(plain)
    assert shown.count(printable(Path(HOSTILE).name)) == places  # of a path, the last part is shown
    markdown = (tmp_path / "hostile/report.md").read_text()
    drawn, _ = elements(MarkdownIt("gfm-like", {"html": True, "linkify": False}).render(markdown))
    assert not {"script", "svg onload", "a href", "comment"} & set(drawn)


@pytest.mark.parametrize("place", ["secret.txt", "figures/secret.txt", "/etc/hostname", "figures/../secret.txt"])
def test_only_pictures_that_the_report_drew_are_embedded(tmp_path, place):
    (tmp_path / "figures").mkdir()
    for file in ("secret.txt", "figures/secret.txt"):
        (tmp_path / file).write_bytes(SECRET)
    (tmp_path / "figures/ua.png").write_bytes(b"drawn")
    text = f"![one](figures/ua.png) ![two]({place}) <img src='{place}'>"
    page = as_page(text, tmp_path / "figures", {"ua.png"}, _environment())
    assert page.count("<img") == page.count("data:") == 1 and 'alt="one"' in page and " two " in page
    assert 'src="figures' not in page and "ZHJhd24=" in page
