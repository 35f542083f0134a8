"""The section of a model card on metrics: the table, the meaning of its columns, and caveats."""

from markupsafe import Markup

from ser_mtl.evaluation.interval_lines import intervals_of, over_whom
from ser_mtl.evaluation.results import NO_TEST, line_note, results_frame, shared_speakers_note, transcription_note
from ser_mtl.hub.complete import selection_of
from ser_mtl.hub.names import NOTE
from ser_mtl.safe_text import markdown

REFIT = "Then trained again for that number of epochs, on training and development set (`--refit`)."

_EXPLAINED = {
    "UA": "the mean of the per-class recalls",
    "WA": "the accuracy",
    "F1": "the mean of the per-class F1 scores",
    "WER": "the word error rate",
    "CCC": "the concordance correlation coefficient",
}


def _metrics_without_test(results: dict) -> str:
    """The section on metrics for a model that was trained on everything."""
    parts = [f"## Metrics\n\n{markdown(NO_TEST)}"]
    if folds := results.get("folds"):
        parts += [
            "Mean scores, in percent, of models that were trained in the same way, each tested on a part of the corpus "
            f"that it was not trained on ({markdown(', '.join(folds['names']))}):",
            metrics_table(folds),
            explanation(folds).strip(),
        ]
    else:
        parts.append(
            f"To get scores, train the folds: `run_stage{results['stage']}.py` with `--fold 1` to `--fold 5`, and "
            "otherwise the same flags. The next publication of this model then has their mean here."
        )
    if dev := results.get("dev"):
        chosen = " (optimistic, because the epoch was chosen on it)" if results["selection"] == "dev" else ""
        parts += [f"On the development set{chosen}, in percent:", metrics_table({"test": dev})]
    if "temperature" in (fitted := results.get("calibration", {})):
        temperature = f"{fitted['temperature']:.2f}"
        parts.append(f"Emotion's probabilities are calibrated with the temperature {temperature}{_fitted_on(fitted)}.")
    return "\n\n".join(filter(None, parts))


def metrics(results: dict) -> str:
    """The section on metrics."""
    if not results["test"]:
        return _metrics_without_test(results)
    notes = [
        f"Checkpoint: {selection_of(results)}.",
        REFIT if results.get("refit") else None,
        _held_out(results),
        _intervals(results),
        _near_duplicates(results),
        _calibration(results),
        transcription_note(results),
        line_note(results),
        NOTE if results.get("hashed_names") else None,
        "One fold and one seed: judge the method by means over folds and seeds.",
    ]
    listed = "\n".join(f"- {note}" for note in notes if note)
    return f"""\
## Metrics

On the test utterances of fold {markdown(results["fold"])}, all and by style, in percent.

{metrics_table(results)}

{explanation(results)}{listed}"""


def explanation(results: dict) -> str:
    """A paragraph that explains the metrics in the table; empty if it has none."""
    words = {word for title in results_frame(results).columns for word in title.replace(",", "").split()}
    explained = [f"{name} {text}" for name, text in _EXPLAINED.items() if name in words]
    return f"{', '.join(explained).replace(' ', ' is ', 1)}.\n\n" if explained else ""


def _intervals(results: dict) -> str | None:
    shown = ", ".join(f"{title} {both}" for title, both in intervals_of(results))
    return f"{over_whom(results)}: {shown}." if shown else None


def _held_out(results: dict) -> str | None:
    if note := shared_speakers_note(results):
        return note
    speakers = results.get("held_out_speakers", [])
    if not speakers:
        return None
    named = f" ({markdown(', '.join(speakers))})" if len(speakers) <= 12 else ", listed in `results.json`"
    return f"Test speakers, none of them in training: {len(speakers)}{named}."


def _near_duplicates(results: dict) -> str | None:
    counted = results.get("leaks", {}).get("near_duplicates", {}).get("all")
    if not counted:
        return None
    return f"Test transcripts with a near-duplicate in training: {100 * counted['share']:.1f} % of {counted['n']}."


def _calibration(results: dict) -> str | None:
    calibration = results.get("calibration", {})
    if "test" not in calibration:
        return None
    error = f"expected calibration error {100 * calibration['test']['before']:.1f} %"
    if "temperature" not in calibration:
        return f"Emotion's probabilities are not calibrated, for want of a development set: {error}."
    return (
        f"Emotion's probabilities are calibrated with the temperature {calibration['temperature']:.2f}"
        f"{_fitted_on(calibration)}: {error} without it, {100 * calibration['test']['after']:.1f} % with it. `logits` "
        '(and so pipelines) have it, `task_logits["emotion"]` are without it.'
    )


def _fitted_on(calibration: dict) -> str:
    counts = calibration.get("fitted_on")
    if counts is None:
        return ", fitted on the development set"
    return (
        f", fitted on the {counts['utterances']} development utterances ({counts['speakers']} speakers, "
        f"{counts['also_in_training']} of them also in training)"
    )


def metrics_table(results: dict) -> str:
    """The metrics of all utterances and of each style, as a table."""
    frame = results_frame(results)
    rows = [[group, *values] for group, values in zip(frame.index, frame.to_numpy(), strict=True)]
    return markdown_table(["utterances", *frame.columns], rows)


def markdown_table(head: list[str], rows: list[list[str]]) -> str:
    """A table in Markdown; all columns except the first are right-aligned. Cells are shown as they are."""
    ruler: list[str] = [Markup(cell) for cell in ("---", *["---:"] * (len(head) - 1))]
    return "\n".join(f"| {' | '.join(markdown(cell) for cell in line)} |" for line in [head, ruler, *rows])
