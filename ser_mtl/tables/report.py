"""report.md and report.html: the tables, their uncertainty, and whether the paper's claims hold in these runs.

Made only from the JSON files of finished runs. All metrics are percent.
"""

import base64
import re
from collections import Counter
from pathlib import Path
from statistics import mode

import jinja2
from markdown_it import MarkdownIt
from markupsafe import Markup, escape

from ser_mtl.errors import UserError
from ser_mtl.evaluation.cosine_figure import mean_cosines, plot_gradient_cosines
from ser_mtl.evaluation.figures import plot_confusion_matrix
from ser_mtl.evaluation.intervals import Counts, counts, interval
from ser_mtl.evaluation.results import shared_speakers_note
from ser_mtl.evaluation.training_curves import plot_training_curves
from ser_mtl.files import fitting, read_json, write_text
from ser_mtl.safe_text import markdown, printable
from ser_mtl.tables.baselines import Baselines
from ser_mtl.tables.claims import check_claims, tests_table, verdict
from ser_mtl.tables.figures import plot_embeddings, plot_ua
from ser_mtl.tables.finished import FinishedRow, FinishedRun, finished_rows, finished_runs
from ser_mtl.tables.plan import Run
from ser_mtl.tables.rows import TITLES
from ser_mtl.tables.sections import (
    agreement_table,
    calibration_table,
    certainty_table,
    cosines_table,
    leaks_table,
    line_table,
    losses_table,
    norms_table,
    papers_tables,
    quoted_table,
    rules_table,
    style_table,
    words_table,
)
from ser_mtl.tables.text import Table

_HERE = Path(__file__).resolve().parent
_FOLD = re.compile(r"^(<details><summary>[\w :,]+</summary>|</details>)$", re.MULTILINE)
"""The only HTML in the template. Text from outside cannot look like it, since its < is escaped."""


def write_report(folder: Path, runs: list[Run], command: str) -> Path:
    """Write report.md with its figures, and report.html with the figures embedded.

    Args:
        folder: receives both files and a folder `figures`; it may hold `baselines.json`.
        runs: the planned runs; at least one row has finished runs.
        command: the command of the runs.

    Returns:
        The path of report.html.
    """
    rows = finished_rows(runs)
    emotion_counts = {row.id: counts(row.predictions()) for row in rows}
    baselines = read_baselines(folder / "baselines.json")
    tables = _tables(rows, emotion_counts, baselines)  # reads all files before anything is written
    settings = about(rows, finished_runs(runs))
    figures = draw(folder / "figures", rows, emotion_counts, baselines)
    environment = _environment()
    text = environment.get_template("report.md.j2").render(
        about=settings,
        command=Markup(printable(command)),
        incomplete=incomplete(runs),
        figures=figures,
        **tables,
    )
    text = re.sub(r"\n{3,}", "\n\n", text)
    write_text(folder / "report.md", text)
    drawn = {file for kind in figures.values() for file in kind.values()}
    write_text(folder / "report.html", as_page(text, folder / "figures", drawn, environment))
    return folder / "report.html"


def read_baselines(file: Path) -> dict:
    """Read the file of `write_baselines`; without one, there are no baselines.

    Raises:
        UserError: the file is damaged, or of an earlier version.
    """
    if not file.is_file():
        return {"text_only": [], "ceiling": None}
    baselines = read_json(file)
    if isinstance(ceiling := baselines.get("ceiling"), dict) and "utterances" not in ceiling:
        raise UserError(f"{file}: is of an earlier version; run run_tables.py once without --report_only")
    return fitting(baselines, Baselines, file)


def _environment() -> jinja2.Environment:
    """Templates of Markdown, which escape everything but `Markup`."""
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE),
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        autoescape=True,
        finalize=markdown,
    )


def _tables(rows: list[FinishedRow], emotion_counts: dict[str, Counts], baselines: dict) -> dict[str, object]:
    """The tables of the report, by their names in the template."""
    tested = check_claims(rows)
    return {
        "on_iemocap": _corpus(rows) == "iemocap",
        "transcribed": any(row.metrics("asr_wer") for row in rows),
        "chosen_on_test": any(run.results["selection"] == "oracle" for row in rows for run in row.runs),
        "shared_speakers": shared_speakers_note(rows[0].runs[0].results),
        "tested": tested,
        "verdict": verdict,
        "tests": tests_table(tested, rows),
        "tables": {number: papers_tables(rows, number) for number in sorted({row.row.table for row in rows})},
        "titles": TITLES,
        "quoted": quoted_table(),
        "certainty": certainty_table(rows, emotion_counts),
        "styles": style_table(rows),
        "rules": rules_table(rows),
        "line": line_table(rows),
        "words": words_table(baselines["text_only"]),
        "ceiling": baselines["ceiling"],
        "agreement": agreement_table(rows, baselines["ceiling"]),
        "leaks": leaks_table(rows),
        "calibration": calibration_table(rows),
        "cosines": cosines_table(rows),
        "norms": norms_table(rows),
        "losses": losses_table(rows),
    }


# ---------------------------------------------------------------------------------------------------- settings


def incomplete(runs: list[Run]) -> dict[str, tuple[int, int]]:
    """Numbers of finished and planned runs, by name, of the rows that are not complete."""
    planned = Counter(run.name for run in runs)
    finished = Counter(run.name for run in runs if run.state == "finished")
    return {name: (finished[name], number) for name, number in planned.items() if finished[name] < number}


def about(rows: list[FinishedRow], runs: list[FinishedRun]) -> Table:
    """The settings of all runs, stage-1 runs included: shared values, and differences by row."""

    def values(*run_values) -> str:
        return ", ".join(sorted({str(value) for value in run_values}))

    versions = runs[0].results["versions"]
    left_out = {task for row in rows for run in row.runs for task in set(row.tasks) - set(run.results["tasks"])}
    facts = {
        "corpus": values(*(_corpus_name(run) for run in runs)),
        "encoder": values(*(Path(run.results["encoder"]).name for run in runs)),
        "folds; seeds": f"{values(*(run.fold for run in runs))}; {values(*(run.seed for run in runs))}",
        "epoch kept; development set": values(
            *(f"--selection {run.results['selection']}; --dev {run.args['corpus']['dev']}" for run in runs)
        ),
        "tasks left out of all rows": values(*left_out) or "none",
        "epochs": _setting(runs, "num_train_epochs"),
        "learning rate": _setting(runs, "learning_rate"),
        "utterances per update": _setting(runs, "batch_size"),
        "runs; minutes of training": f"{len(runs)}; {sum(run.results['minutes'] for run in runs):.0f}",
        "commit": values(*(run.results["commit"] for run in runs)),
        "versions": ", ".join(f"{package} {version}" for package, version in versions.items()),
    }
    return Table(["", ""], [[name, fact] for name, fact in facts.items()])


def _setting(runs: list[FinishedRun], name: str) -> str:
    """A setting of the runs, as briefly as possible: one value for all, one per stage or kind, or one per row."""
    titles = ("", "stage {stage}", "{trainable}", "stage {stage}, {trainable}")
    for title in titles:
        values = _values_by_title(name, {run: title.format(**run.results) for run in runs})
        if all(len(group) == 1 for group in values.values()):
            return _listed(values)
    stages = {run: f"stage {run.results['stage']}" for run in runs}
    usual = {stage: mode(_value(run, name) for run in runs if stages[run] == stage) for stage in stages.values()}
    exceptions = {run.folder.name for run in runs if _value(run, name) != usual[stages[run]]}
    rows = {run: run.folder.name if run.folder.name in exceptions else stages[run] for run in runs}
    return _listed(_values_by_title(name, rows))


def _value(run: FinishedRun, name: str) -> str:
    return str(run.args["training"].get(name))


def _values_by_title(name: str, title_of: dict[FinishedRun, str]) -> dict[str, set[str]]:
    """The values of a setting under each title."""
    values: dict[str, set[str]] = {}
    for run, title in title_of.items():
        values.setdefault(title, set()).add(_value(run, name))
    return values


def _listed(values: dict[str, set[str]]) -> str:
    """As "stage 1: 12; stage 2: 6, 8"; without a title, the values alone."""
    lines = (f"{title}: {', '.join(sorted(values[title]))}" for title in sorted(values))
    return "; ".join(line.removeprefix(": ") for line in lines)


def _corpus(rows: list[FinishedRow]) -> str:
    return rows[0].runs[0].results["corpus"]


def _corpus_name(run: FinishedRun) -> str:
    """The corpus of a run; for folders, their names without the paths."""
    if run.results["corpus"] != "folder":
        return run.results["corpus"]
    return " and ".join(Path(folder).name for folder in run.args["corpus"]["data_dir"])


# ------------------------------------------------------------------------------------------------------- figures


def draw(
    folder: Path, rows: list[FinishedRow], emotion_counts: dict[str, Counts], baselines: dict
) -> dict[str, dict[str, str]]:
    """Draw all figures. Returns, by kind, their file names in `folder` by title."""
    labels = {row.id: row.labels() for row in rows}
    references = {"text-only baseline": counts([baselines["text_only"]]).overall()} if baselines["text_only"] else {}
    paper = {row.id: row.row.paper.ua for row in rows if row.row.paper.ua and _corpus(rows) == "iemocap"}
    titles = {row.id: row.row.name for row in rows}
    plot_ua({name: interval(row) for name, row in emotion_counts.items()}, folder / "ua.png", titles, paper, references)
    figures: dict[str, dict[str, str]] = {"ua": {"UA of each row": "ua.png"}, "confusion": {}, "curves": {}}
    for row in rows:
        name = row.id
        plot_confusion_matrix(row.confusion(), labels[name], folder / f"confusion-{name}.png", f"{name}, all runs")
        figures["confusion"][name] = f"confusion-{name}.png"
        on = "Test fold (oracle)" if row.runs[0].results["selection"] == "oracle" else "Development set"
        by_epochs = row.by_epochs()
        for epochs, runs in by_epochs.items():
            suffix = f"-{epochs:g}-epochs" if len(by_epochs) > 1 else ""
            title = f"{name}, {epochs:g} epochs"
            plot_training_curves(runs.mean_history(), folder / f"curves-{name}{suffix}.png", None, on, title)
            figures["curves"][name + suffix] = f"curves-{name}{suffix}.png"
    return figures | {"embeddings": _draw_embeddings(folder, rows), "cosines": _draw_cosines(folder, rows)}


def _draw_embeddings(folder: Path, rows: list[FinishedRow]) -> dict[str, str]:
    """x_e, x_g and x_s of one run each, without and with the self-contrastive loss, on the same test set."""
    titles = {"t3-concat": "no SCL", "t3-scl-norm": "SCL_norm", "t3-scl-cos": "SCL_cos"}
    runs = {row.id: {(run.seed, run.fold): run for run in row.runs} for row in rows if row.id in titles}
    shared = set.intersection(*map(set, runs.values())) if runs else set()
    if not shared:
        return {}
    seed, fold = min(shared)
    points = {
        f"{name}: {titles[name]}": [row["points"] for row in row_runs[seed, fold].predictions if "points" in row]
        for name, row_runs in runs.items()
    }
    if not all(len({tuple(one) for one in utterances}) == 1 for utterances in points.values()):
        return {}  # of an earlier version, or not of the same tasks
    plot_embeddings(points, folder / "embeddings.png")
    return {f"Embeddings of the test utterances of fold {fold}, seed {seed}": "embeddings.png"}


def _draw_cosines(folder: Path, rows: list[FinishedRow]) -> dict[str, str]:
    """Cosines of all tasks in one stage, and of the two stages of the proposed system."""
    chosen = [row for row in rows if row.row.run in ("t1-full-all", "t1-full-ser-asr", "t3-scl-cos")]
    means = {}
    for row in chosen:
        records = [run.cosines for run in row.runs if run.cosines]
        if measurements := [one for record in records for one in record["measurements"]]:
            means[row.row.run] = mean_cosines(records[0]["groups"], measurements)
    if not means:
        return {}
    plot_gradient_cosines(means, folder / "cosines.png")
    return {"Cosines between the gradients of each pair of losses": "cosines.png"}


def as_page(text: str, folder: Path, drawn: set[str], environment: jinja2.Environment) -> str:
    """Markdown as one page of HTML that needs no other file.

    Args:
        text: the report.
        folder: holds its figures.
        drawn: their file names. Of other images, only the description is shown.
        environment: of the templates.
    """

    def image(renderer, tokens, index, options, env) -> str:
        token = tokens[index]
        name = str(token.attrGet("src")).removeprefix(f"{folder.name}/")
        if name not in drawn:
            return str(escape(token.content))
        data = base64.b64encode((folder / name).read_bytes()).decode()
        return f'<img src="data:image/png;base64,{data}" alt="{escape(token.content)}" />'

    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    parser.add_render_rule("image", image)
    parts = _FOLD.split(text)  # Markdown, HTML, Markdown, HTML, ...
    body = "".join(part if number % 2 else parser.render(part) for number, part in enumerate(parts))
    return environment.get_template("page.html.j2").render(body=Markup(body))
