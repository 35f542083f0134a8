"""Train corpus against test corpus: one table and one figure from the folders of runs and of evaluations."""

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from markupsafe import Markup

from ser_mtl.corpora.loading import name_with_folders
from ser_mtl.cross.evaluate import Evaluation
from ser_mtl.errors import UserError
from ser_mtl.evaluation.intervals import Counts, counts, interval, ua, wa, with_ends
from ser_mtl.evaluation.predictions import WithEmotion, read_predictions
from ser_mtl.evaluation.results import Results
from ser_mtl.files import read_json, write_text
from ser_mtl.hub.card_metrics import markdown_table
from ser_mtl.tables.figures import plot_cross
from ser_mtl.training.run_folder import Record

_SYSTEM = ("stage", "encoder", "trainable", "tasks")
"""What tells two systems that were trained on the same corpus apart, and their classes."""


class Tested(NamedTuple):
    """One model on one test set."""

    trained_on: str
    system: tuple[str, ...]
    tested_on: str
    rows: list[dict]


def read_tested(folder: Path) -> Tested:
    """Read the folder of an evaluation, or of a run, which was tested on its own corpus.

    Raises:
        UserError: it is neither, or has no emotion.
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
    rows = read_predictions(folder / "predictions.jsonl", WithEmotion)
    if all(row["emotion"]["label"] is None for row in rows):
        raise UserError(f"{folder / 'predictions.jsonl'}: holds no utterance with a label of emotion")
    classes = ", ".join(rows[0]["emotion"]["probabilities"])
    return Tested(trained_on, (*(_fact(about.get(name)) for name in _SYSTEM), classes), tested_on, rows)


def _fact(value: object) -> str:
    return ", ".join(value) if isinstance(value, list) else Path(str(value)).name


def write_cross(folder: Path, tested: Iterable[Path]) -> str:
    """Write cross.md and cross.png.

    Models that differ only in fold and seed share a row, their utterances are put together.

    Args:
        folder: to write to.
        tested: folders of runs and evaluations.

    Returns:
        The table in Markdown.

    Raises:
        UserError: as `read_tested`, or a folder is there twice.
    """
    cells: dict[tuple[str, str], list[list[dict]]] = defaultdict(list)
    folders = list(tested)
    if twice := [one for number, one in enumerate(folders) if one.resolve() in map(Path.resolve, folders[:number])]:
        raise UserError(f"--cross {twice[0]}: is named twice, and would count twice")
    models = [read_tested(one) for one in folders]
    titles = _titles(models)
    for model in models:
        cells[titles[model.trained_on, model.system], model.tested_on].append(model.rows)
    rows, columns = (list(dict.fromkeys(names)) for names in zip(*cells, strict=True))
    counted = {cell: counts(runs) for cell, runs in cells.items()}
    own = {(titles[model.trained_on, model.system], model.trained_on) for model in models}
    plot_cross({cell: interval(found) for cell, found in counted.items()}, rows, columns, folder / "cross.png")
    matrix = [[row, *(_shown(counted.get((row, column)), (row, column) in own) for column in columns)] for row in rows]
    table = markdown_table(["trained on", *columns], matrix)
    text = "\n\n".join([
        "# Train corpus against test corpus",
        "Emotion UA, percent, with 95 % intervals over the test speakers (jackknife, Student's t; for other speakers "
        "and the same trained models). Bold: the held-out speakers of the train corpus itself. UA is over the classes "
        "that the test corpus has; a model may answer any of its own.",
        table,
        "![Emotion UA by train and test corpus](cross.png)",
        _details(cells, counted),
    ])  # fmt: skip
    write_text(folder / "cross.md", text + "\n")
    return table


def _shown(found: Counts | None, own: bool) -> str:
    if found is None:
        return "-"
    text = with_ends(interval(found))
    return Markup(f"**{text}**") if own else text


def _details(cells: dict[tuple[str, str], list[list[dict]]], counted: dict[tuple[str, str], Counts]) -> str:
    head = ["trained on, tested on", "runs", "utterances", "speakers", "classes, of the model", "UA", "WA"]
    lines = []
    for (row, column), found in counted.items():
        runs = cells[row, column]
        speakers = {one["speaker"] for rows in runs for one in rows} - {None}
        of_model = len(runs[0][0]["emotion"]["probabilities"])
        numbers = [len(runs), int(found.all.sum()), len(speakers) or "unknown", f"{found.all.shape[1]}, {of_model}"]
        scores = [with_ends(interval(found, metric)) for metric in (ua, wa)]
        lines.append([f"{row}, {column}", *map(str, numbers), *scores])
    return markdown_table(head, lines)


def _titles(models: list[Tested]) -> dict[tuple[str, tuple[str, ...]], str]:
    """A title for each system: the corpus it was trained on, and what tells it from the others."""
    facts = (*_SYSTEM, "classes")
    differing = [place for place in range(len(facts)) if len({model.system[place] for model in models}) > 1]
    return {
        (model.trained_on, model.system): ", ".join(
            [model.trained_on, *(f"{facts[place]} {model.system[place]}" for place in differing)]
        )
        for model in models
    }
