"""report.md and report.html: the tables again, how sure they are, and whether the paper's claims hold in these runs.

Made from the json of finished runs, and nothing else. Every figure in percent.
"""

import base64
import re
from collections import Counter
from pathlib import Path
from statistics import mode

import jinja2
from markdown_it import MarkdownIt

from ser_mtl.evaluation.figures import mean_cosines, plot_confusion_matrix, plot_gradient_cosines, plot_training_curves
from ser_mtl.files import read_json, write_text
from ser_mtl.tables.claims import check_claims, tests_table, verdict
from ser_mtl.tables.figures import plot_embeddings, plot_ua
from ser_mtl.tables.finished import FinishedRow, FinishedRun, finished_rows, finished_runs
from ser_mtl.tables.plan import Run
from ser_mtl.tables.rows import TITLES
from ser_mtl.tables.sections import (
    calibration_table,
    certainty_table,
    cosines_table,
    leaks_table,
    losses_table,
    papers_tables,
    rules_table,
    style_table,
    words_table,
)
from ser_mtl.tables.statistics import Counts, counts, interval
from ser_mtl.tables.text import Table

_HERE = Path(__file__).resolve().parent


def write_report(folder: Path, runs: list[Run], command: str) -> Path:
    """Write report.md with its pictures, and report.html with the pictures in it.

    Args:
        folder: of both, of a folder `pictures`, and of `baselines.json` where there is one.
        runs: of the plan, finished or not, one row at least finished.
        command: how the runs were made.

    Returns:
        The path of report.html.
    """
    rows = finished_rows(runs)
    sure = {row.row.id: counts(row.predictions()) for row in rows}
    tested = check_claims(rows)
    file = folder / "baselines.json"
    baselines = read_json(file) if file.is_file() else {"text_only": [], "ceiling": None}
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE), trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    text = environment.get_template("report.md.j2").render(
        about=about(rows, finished_runs(runs)),
        command=command,
        on_iemocap=_corpus(rows) == "iemocap",
        incomplete=incomplete(runs),
        tested=tested,
        verdict=verdict,
        tests=tests_table(tested, rows),
        tables={number: papers_tables(rows, number) for number in sorted({row.row.table for row in rows})},
        titles=TITLES,
        certainty=certainty_table(rows, sure),
        styles=style_table(rows),
        rules=rules_table(rows),
        words=words_table(baselines["text_only"]),
        ceiling=baselines["ceiling"],
        leaks=leaks_table(rows),
        calibration=calibration_table(rows),
        cosines=cosines_table(rows),
        losses=losses_table(rows),
        pictures=draw(folder / "pictures", rows, sure, baselines),
        chosen_on_test=any(run.results["selection"] == "oracle" for row in rows for run in row.runs),
    )
    text = re.sub(r"\n{3,}", "\n\n", text)
    write_text(folder / "report.md", text)
    write_text(folder / "report.html", as_page(text, folder, environment))
    return folder / "report.html"


# ------------------------------------------------------------------------------------------------- what was run


def incomplete(runs: list[Run]) -> dict[str, tuple[int, int]]:
    """Finished and planned runs, by name, where these are more."""
    planned = Counter(run.name for run in runs)
    finished = Counter(run.name for run in runs if run.state == "finished")
    return {name: (finished[name], number) for name, number in planned.items() if finished[name] < number}


def about(rows: list[FinishedRow], runs: list[FinishedRun]) -> Table:
    """What the runs have in common, those too that a row only goes on from, and what differs among them."""

    def values(*of_runs) -> str:
        return ", ".join(sorted({str(value) for value in of_runs}))

    versions = runs[0].results["versions"]
    left_out = {task for row in rows for run in row.runs for task in set(row.tasks) - set(run.results["tasks"])}
    facts = {
        "corpus": values(*(_named(run) for run in runs)),
        "encoder": values(*(Path(run.results["encoder"]).name for run in runs)),
        "folds; seeds": f"{values(*(run.fold for run in runs))}; {values(*(run.seed for run in runs))}",
        "epoch kept; development set": values(
            *(f"--selection {run.results['selection']}; --dev {run.args['corpus']['dev']}" for run in runs)
        ),
        "tasks left out of all rows": values(*left_out) or "none",
        "epochs": _setting(runs, "num_train_epochs"),
        "learning rate": _setting(runs, "learning_rate"),
        "utterances an update": _setting(runs, "batch_size"),
        "runs; minutes of training": f"{len(runs)}; {sum(run.results['minutes'] for run in runs):.0f}",
        "commit": values(*(run.results["commit"] for run in runs)),
        "versions": ", ".join(f"{package} {version}" for package, version in versions.items()),
    }
    return Table(["", ""], [[name, fact] for name, fact in facts.items()])


def _setting(runs: list[FinishedRun], name: str) -> str:
    """Once for all runs, by stage, by what was trained, or by stage but for single rows: the first that is true."""
    value = {run: str(run.args["training"].get(name)) for run in runs}
    for told_by in ("", "stage {stage}", "{trainable}", "stage {stage}, {trainable}"):
        told = {(told_by.format(**run.results), value[run]) for run in runs}
        if len(told) == len({of for of, _ in told}):
            break
    else:
        stage = {run: f"stage {run.results['stage']}" for run in runs}
        usual = {of: mode(value[run] for run in runs if stage[run] == of) for of in stage.values()}
        single = {run.folder.name for run in runs if value[run] != usual[stage[run]]}
        told = {(run.folder.name if run.folder.name in single else stage[run], value[run]) for run in runs}
    values = {of: ", ".join(sorted(told_value for other, told_value in told if other == of)) for of, _ in sorted(told)}
    return "; ".join(f"{of}: {told_values}".removeprefix(": ") for of, told_values in values.items())


def _corpus(rows: list[FinishedRow]) -> str:
    return rows[0].runs[0].results["corpus"]


def _named(run: FinishedRun) -> str:
    folders = run.args["corpus"]["data_dir"] or []
    return (
        " and ".join(Path(name).name for name in folders)
        if run.results["corpus"] == "folder"
        else run.results["corpus"]
    )


# ------------------------------------------------------------------------------------------------------- pictures


def draw(folder: Path, rows: list[FinishedRow], sure: dict[str, Counts], baselines: dict) -> dict[str, dict[str, str]]:
    """Draw all pictures; returns, by kind, the file names of `folder` by title."""
    references = {"words alone": counts([baselines["text_only"]]).overall()} if baselines["text_only"] else {}
    references |= {"one listener against the others": baselines["ceiling"]["ua"]} if baselines["ceiling"] else {}
    paper = {row.row.id: row.row.paper.ua for row in rows if row.row.paper.ua and _corpus(rows) == "iemocap"}
    titles = {row.row.id: row.row.name for row in rows}
    plot_ua({name: interval(of_row) for name, of_row in sure.items()}, folder / "ua.png", titles, paper, references)
    pictures: dict[str, dict[str, str]] = {"ua": {"UA of each row": "ua.png"}, "confusion": {}, "curves": {}}
    for row in rows:
        name, labels = row.row.id, row.runs[0].results["test"]["all"]["emotion"]["labels"]
        plot_confusion_matrix(row.confusion(), labels, folder / f"confusion-{name}.png", f"{name}, all runs")
        pictures["confusion"][name] = f"confusion-{name}.png"
        on = "Test fold (oracle)" if row.runs[0].results["selection"] == "oracle" else "Development set"
        by_epochs = row.by_epochs()
        for epochs, alike in by_epochs.items():
            told = f"-{epochs:g}-epochs" if len(by_epochs) > 1 else ""
            title = f"{name}, {epochs:g} epochs"
            plot_training_curves(alike.mean_history(), folder / f"curves-{name}{told}.png", None, on, title)
            pictures["curves"][name + told] = f"curves-{name}{told}.png"
    return pictures | {"embeddings": _draw_embeddings(folder, rows), "cosines": _draw_cosines(folder, rows)}


def _draw_embeddings(folder: Path, rows: list[FinishedRow]) -> dict[str, str]:
    """x_e, x_g and x_s of one run each, without and with self-contrastive loss, on the same test set."""
    titles = {"t3-concat": "no SCL", "t3-scl-norm": "SCL_norm", "t3-scl-cos": "SCL_cos"}
    runs = {row.row.id: {(run.seed, run.fold): run for run in row.runs} for row in rows if row.row.id in titles}
    shared = set.intersection(*map(set, runs.values())) if runs else set()
    if not shared:
        return {}
    seed, fold = min(shared)
    points = {
        f"{name}: {titles[name]}": [row["points"] for row in of_row[seed, fold].predictions]
        for name, of_row in runs.items()
    }
    plot_embeddings(points, folder / "embeddings.png")
    return {f"Embeddings of the test utterances of fold {fold}, seed {seed}": "embeddings.png"}


def _draw_cosines(folder: Path, rows: list[FinishedRow]) -> dict[str, str]:
    """Cosines where the paper speaks of them: all tasks in one stage, and both of its two stages."""
    chosen = [row for row in rows if row.row.id in ("t1-full-all", "t1-full-ser-asr", "t3-scl-cos")]
    means = {}
    for row in chosen:
        records = [run.cosines for run in row.runs if run.cosines]
        if measurements := [one for record in records for one in record["measurements"]]:
            means[row.row.id] = mean_cosines(records[0]["groups"], measurements)
    if not means:
        return {}
    plot_gradient_cosines(means, folder / "cosines.png")
    return {"Cosines between the gradients of every two losses": "cosines.png"}


def as_page(text: str, folder: Path, environment: jinja2.Environment) -> str:
    """Markdown as one page of HTML that needs no other file: pictures are in it."""
    body = MarkdownIt("commonmark").enable("table").render(text)

    def inlined(match: re.Match) -> str:
        return f'src="data:image/png;base64,{base64.b64encode((folder / match[1]).read_bytes()).decode()}"'

    return environment.get_template("page.html.j2").render(body=re.sub(r'src="([^":]+)"', inlined, body))
