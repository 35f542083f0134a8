"""Train corpus against test corpus: tables and figures of emotion and values, from folders of runs and evaluations."""

import os
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from markupsafe import Markup

from ser_mtl.corpora.loading import name_with_folders
from ser_mtl.cross.evaluate import Evaluation
from ser_mtl.errors import UserError
from ser_mtl.evaluation.intervals import Interval, counts, interval, wa, with_ends
from ser_mtl.evaluation.metric_intervals import ccc_over_speakers
from ser_mtl.evaluation.predictions import read_predictions
from ser_mtl.evaluation.results import Results
from ser_mtl.files import read_json, write_text
from ser_mtl.hub.card_metrics import markdown_table
from ser_mtl.tables.figures import plot_cross
from ser_mtl.tasks import VALUE_TASKS
from ser_mtl.training.run_folder import Record

_SYSTEM = ("stage", "encoder", "trainable", "tasks")
"""The facts that distinguish two systems trained on the same corpus, beside their classes."""

_COMPARED = ("emotion", *VALUE_TASKS)

_Cells = dict[tuple[str, str], list[list[dict]]]
"""By train and test corpus, the rows of each run."""


class Tested(NamedTuple):
    """One model on one test set."""

    trained_on: str
    system: tuple[str, ...]
    tested_on: str
    rows: list[dict]


def read_tested(folder: Path) -> Tested:
    """Read the folder of an evaluation, or of a run, which was tested on its own corpus.

    Raises:
        UserError: it is neither, or has neither emotion nor a value.
    """
    file = folder / "results.json"
    results = read_json(file)
    if "system" in results:
        results = read_json(file, Evaluation)
        about, trained_on, tested_on = results["system"], results["system"]["trained_on"], results["corpus"]
    else:
        about = read_json(file, Results)
        args = folder / "args.json"
        corpus = read_json(args, Record).get("corpus", {}) if args.is_file() else {}
        trained_on = tested_on = name_with_folders(results["corpus"], corpus.get("data_dir"))
    rows = read_predictions(folder / "predictions.jsonl")
    if not any(_labelled(rows, task) for task in _COMPARED):
        names = ", ".join(_COMPARED)
        raise UserError(f"{folder / 'predictions.jsonl'}: holds no utterance with a label of any of {names}")
    classes = ", ".join(rows[0]["emotion"]["probabilities"]) if rows[0].get("emotion") else "none"
    return Tested(trained_on, (*(_fact(about.get(name)) for name in _SYSTEM), classes), tested_on, rows)


def _labelled(rows: list[dict], task: str) -> list[dict]:
    """The utterances with a label of a task, if it was trained."""
    return [row for row in rows if row.get(task) and row[task]["label"] is not None]


def _fact(value: object) -> str:
    return ", ".join(value) if isinstance(value, list) else Path(str(value)).name


def write_cross(folder: Path, tested: Iterable[Path]) -> str:
    """Write cross.md and a figure of each task that any folder has: cross.png of emotion, cross-valence.png, ...

    Models that differ only in fold and seed share a row: their utterances are pooled.

    Args:
        folder: to write to.
        tested: folders of runs and evaluations.

    Returns:
        The tables in Markdown.

    Raises:
        UserError: as `read_tested`, or a folder is there twice.
    """
    cells: _Cells = defaultdict(list)
    folders = list(tested)
    places = list(map(os.path.realpath, folders))
    if twice := [path for i, path in enumerate(folders) if places[i] in places[:i]]:
        raise UserError(f"--cross {twice[0]}: is named twice, and would count twice")
    models = [read_tested(path) for path in folders]
    titles = _titles(models)
    for model in models:
        cells[titles[model.trained_on, model.system], model.tested_on].append(model.rows)
    own = {(titles[model.trained_on, model.system], model.trained_on) for model in models}
    tables, sections = [], []
    for task in _COMPARED:
        labelled = {cell: [_labelled(rows, task) for rows in runs] for cell, runs in cells.items()}
        if some := {cell: found for cell, runs in labelled.items() if (found := list(filter(None, runs)))}:
            table, section = _section(folder, task, some, own)
            tables.append(f"{_metric(task)}, percent:\n\n{table}")
            sections.append(section)
    text = "\n\n".join([
        "# Train corpus against test corpus",
        "Percent, with 95 % intervals over the test speakers (jackknife, Student's t; for other speakers and the same "
        "trained models). Bold: the held-out speakers of the train corpus itself.",
        *sections,
    ])  # fmt: skip
    write_text(folder / "cross.md", text + "\n")
    return "\n\n".join(tables)


def _section(folder: Path, task: str, cells: _Cells, own: set[tuple[str, str]]) -> tuple[str, str]:
    """Draw the matrix of a task; return its table, and the section of the report that holds it."""
    found = {cell: _main_metric(runs, task) for cell, runs in cells.items()}
    rows, columns = (list(dict.fromkeys(names)) for names in zip(*cells, strict=True))
    metric, figure = _metric(task), "cross.png" if task == "emotion" else f"cross-{task}.png"
    plot_cross(found, rows, columns, metric, folder / figure)
    matrix = [[row, *(_shown(found.get((row, column)), (row, column) in own) for column in columns)] for row in rows]
    table = markdown_table(["trained on", *columns], matrix)
    about = (
        "UA is over the classes that the test corpus has; a model may answer any of its own."
        if task == "emotion"
        else "CCC falls with every difference of scale: a model of 1 to 5 is far from a corpus of 1 to 7."
    )
    image = f"![{metric} by train and test corpus]({figure})"
    return table, "\n\n".join([f"## {metric}", about, table, image, _details(cells, found, task)])


def _metric(task: str) -> str:
    return "Emotion UA" if task == "emotion" else f"{task.capitalize()} CCC"


def _main_metric(runs: list[list[dict]], task: str) -> Interval:
    """UA of emotion, CCC of a value."""
    return interval(counts(runs)) if task == "emotion" else ccc_over_speakers(runs, task)


def _shown(found: Interval | None, own: bool) -> str:
    if found is None:
        return "-"
    text = with_ends(found)
    return Markup(f"**{text}**") if own else text


def _details(cells: _Cells, found: dict[tuple[str, str], Interval], task: str) -> str:
    """The runs, utterances and speakers behind each cell, as a table."""
    emotion = task == "emotion"
    head = ["trained on, tested on", "runs", "utterances", "speakers"]
    lines = []
    for (row, column), runs in cells.items():
        labelled = [utterance for rows in runs for utterance in rows]
        speakers = {utterance["speaker"] for utterance in labelled} - {None}
        numbers = [len(runs), len({utterance["id"] for utterance in labelled}), len(speakers) or "unknown"]
        line = [f"{row}, {column}", *map(str, numbers)]
        if emotion:
            classes = len({utterance["emotion"]["label"] for utterance in labelled})
            line.append(f"{classes}, {len(labelled[0]['emotion']['probabilities'])}")
        line.append(with_ends(found[row, column]))
        lines.append([*line, with_ends(interval(counts(runs), wa))] if emotion else line)
    return markdown_table([*head, *(["classes, of the model", "UA", "WA"] if emotion else ["CCC"])], lines)


def _titles(models: list[Tested]) -> dict[tuple[str, tuple[str, ...]], str]:
    """A title for each system: the corpus it was trained on, and the facts in which it differs from the others."""
    facts = (*_SYSTEM, "classes")
    differing = [place for place in range(len(facts)) if len({model.system[place] for model in models}) > 1]
    return {
        (model.trained_on, model.system): ", ".join(
            [model.trained_on, *(f"{facts[place]} {model.system[place]}" for place in differing)]
        )
        for model in models
    }
