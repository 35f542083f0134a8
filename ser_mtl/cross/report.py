"""The report of an evaluation: the table on the terminal, and the folder of results."""

import textwrap
from pathlib import Path

from ser_mtl.cross.evaluate import uncalibrated
from ser_mtl.errors import UserError
from ser_mtl.evaluation.interval_lines import interval_lines, intervals_of, over_whom
from ser_mtl.evaluation.predictions import write_predictions
from ser_mtl.evaluation.results import results_table
from ser_mtl.files import write_json, write_text
from ser_mtl.hub.card_metrics import explanation, markdown_table, metrics_table
from ser_mtl.hub.links import hub_id
from ser_mtl.safe_text import markdown, printable
from ser_mtl.training.outcome import plot_emotion
from ser_mtl.training.run_folder import check_writable

_WIDTH = 80

_PREDICTIONS = "predictions.jsonl"
_BEFORE_THE_RESULTS = {_PREDICTIONS, "confusion_matrix.png", "reliability.png", "README.md"}

_FIGURES = """\
![Confusion matrix](confusion_matrix.png)

![How often an emotion was right, by its probability](reliability.png)"""


def title_of(results: dict) -> str:
    """The title of an evaluation: the corpus of the training, and that of the test."""
    part = "" if results["part"] == "all" else f" ({results['part']})"
    return f"Trained on {results['system']['trained_on']}, tested on {results['corpus']}{part}"


def terminal_table(results: dict) -> str:
    """The metrics of all utterances and of each style, their intervals, and notes."""
    lines = [title_of(results), results_table(results), *filter(None, [interval_lines(results)])]
    lines += [textwrap.fill(note, _WIDTH) for note in notes(results)]
    return "\n\n".join(map(_printable_lines, lines))


def _printable_lines(text: str) -> str:
    """Each line of the text, safe for a terminal."""
    return "\n".join(map(printable, text.split("\n")))


def notes(results: dict) -> list[str]:
    """Notes for a reader of the scores, a sentence or two each."""
    labels, absent = results["labels"].get("emotion", []), results["absent"]
    calibration = results.get("calibration", {})
    found = []
    if labels and absent:
        found.append(
            f"The corpus has no {', '.join(absent)}: UA is over the other {len(labels) - len(absent)} of the model's "
            f"{len(labels)} classes, any of which it may answer."
        )
    if calibration:
        errors = {name: f"{100 * error:.1f} %" for name, error in calibration["test"].items()}
        without = f" with the model's temperature, {errors['before']} without it" if "after" in errors else ""
        found.append(f"Expected calibration error: {errors.get('after', errors['before'])}{without}.")
    found += [f"Left out: {line}." for line in results["left_out"]]
    if not results["checked"]:
        found.append("It was not checked whether the model was trained on these utterances.")
    return found


def check_folder(folder: Path) -> None:
    """Check, before an evaluation, that it can be written into a folder.

    Raises:
        UserError: the folder holds more than what an interruption left, or cannot be written.
    """
    check_writable(folder)
    inside = {path.name.removeprefix(".partial.") for path in folder.iterdir()} if folder.is_dir() else set()
    if inside - _BEFORE_THE_RESULTS or (inside and _PREDICTIONS not in inside):
        raise UserError(f"--output_dir {folder}: holds files already; name another folder or empty it")


def write_evaluation(folder: Path, results: dict, rows: list[dict]) -> None:
    """Write predictions, figures and a report; `results.json` last, as the sign that the folder is complete.

    Args:
        folder: to write to.
        results: an `Evaluation`.
        rows: its predictions, calibrated.
    """
    write_predictions(folder / _PREDICTIONS, rows)
    if "emotion" in results["labels"]:
        plain = uncalibrated(rows, results["calibration"].get("temperature", 1.0))
        plot_emotion(results, plain, folder, title_of(results))
    write_text(folder / "README.md", report(results))
    write_json(folder / "results.json", results)


def report(results: dict) -> str:
    """The README.md of an evaluation."""
    system = results["system"]
    facts = {
        "model": _name(results["model"]),
        "trained on": system["trained_on"],
        "stage, encoder": ", ".join(str(fact) for fact in (system["stage"], _name(system["encoder"])) if fact),
        "tested on": f"{results['corpus']}, {results['part']}",
        "utterances, speakers": f"{results['utterances']}, {results['speakers'] or 'unknown'}",
        "--map": " ".join(results["map"]),
        "commit": results["commit"],
    }
    intervals = intervals_of(results)
    sections = [
        f"# {markdown(title_of(results))}",
        markdown_table(["", ""], [[name, str(fact)] for name, fact in facts.items() if fact]),
        "Percent, of all utterances and by style:",
        metrics_table(results),
        explanation(results).strip(),
        f"{over_whom(results)}:" if intervals else "",
        markdown_table(["", "(95 %)"], [list(row) for row in intervals]) if intervals else "",
        "\n".join(f"- {markdown(note)}" for note in notes(results)),
        _FIGURES if "emotion" in results["labels"] else "",
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _name(model: str | None) -> str | None:
    """A Hub id, or the last name of a folder."""
    return model if model is None or hub_id(model) else Path(model).name
