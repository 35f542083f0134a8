"""The results of a finished run: predictions of the test fold, metrics, figures and the model card."""

import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from peft import PeftModel

from ser_mtl.corpora.audio import SAMPLING_RATE
from ser_mtl.corpora.leaks import find_leaks
from ser_mtl.corpora.loading import name_in_results
from ser_mtl.errors import UserError
from ser_mtl.evaluation.calibration import calibrated, calibration, emotion_probabilities
from ser_mtl.evaluation.embeddings import two_dimensions
from ser_mtl.evaluation.figures import plot_confusion_matrix, plot_reliability
from ser_mtl.evaluation.interval_lines import interval_lines
from ser_mtl.evaluation.metric_intervals import intervals_over_speakers
from ser_mtl.evaluation.predictions import references_and_predictions, write_predictions
from ser_mtl.evaluation.results import below_line, part_of, results_table
from ser_mtl.evaluation.scores import metrics_by_group
from ser_mtl.evaluation.training_curves import plot_training_curves
from ser_mtl.evaluation.value_figure import plot_values
from ser_mtl.files import write_json, write_text
from ser_mtl.hub.beside import with_folds
from ser_mtl.hub.card import model_card
from ser_mtl.hub.complete import size_of
from ser_mtl.lock import lock, release
from ser_mtl.safe_text import printable
from ser_mtl.tasks import VALUE_TASKS
from ser_mtl.training.arguments import SerMtlArguments
from ser_mtl.training.checkpoints import OF_A_FINISHED_RUN, search_folder, tidy

if TYPE_CHECKING:
    from ser_mtl.training.trainer import SerMtlTrainer


HELP_BELOW_THE_LINE = """\
Below the line of the frozen encoder. What usually helps: {speakers}a stage 1 with all layers, from their probe
(--layer_statistics --probe_start --augment speed; the recipe `small` has them), neither too few updates nor too
many (--min_updates, --learning_rate), recordings of more speakers. See docs/small_corpora.md, "Below the line"."""


def finish_run(trainer: "SerMtlTrainer", leaks: dict | None = None) -> dict:
    """Evaluate a trained model on the test fold, and write everything that a finished run has.

    Args:
        trainer: after `train`.
        leaks: the result of `ser_mtl.corpora.leaks.find_leaks`, if it is known already.

    Returns:
        The content of `results.json`.

    Raises:
        UserError: nothing is trained yet, or another run is at work in the folder.
    """
    if trainer.history is None:
        raise UserError("finish: this Trainer has not trained yet; call train() first")
    if trainer.is_world_process_zero():
        lock(Path(trainer.args.output_dir))
    if "test" not in trainer.parts:
        return save_results(trainer, results_of(trainer, {}, []), [])
    rows = predict_test(trainer)
    results = results_of(trainer, find_leaks(trainer.parts) if leaks is None else leaks, rows)
    return save_results(trainer, results, rows)


def predict_test(trainer: "SerMtlTrainer") -> list[dict]:
    """Predict the test fold; if the model under the adapters transcribes too, once more with the adapters off.

    Its transcripts are the hypotheses of a model that was not trained for speech recognition itself.
    """
    predicted = trainer.predict(trainer.parts["test"])
    predictions = predicted.predictions
    embeddings = {name.removesuffix("_embedding"): x for name, x in predictions.items() if "_embedding" in name}
    more: dict[str, Any] = {"points": two_dimensions(embeddings)}
    if isinstance(trainer.model, PeftModel) and "asr" in predictions and trainer.start.base_transcribes:
        with trainer.accelerator.unwrap_model(trainer.model).disable_adapter():
            adapters_off = trainer.predict(trainer.parts["test"])
        # Both are in the order of the test set, so row i is the same utterance.
        name = "hypotheses_adapters_off" if "asr" in trainer.stage.tasks else "hypotheses"
        more[name] = trainer.transcripts(adapters_off.predictions["asr"])
    return trainer.rows(predictions, predicted.label_ids, **more)


def results_of(trainer: "SerMtlTrainer", leaks: dict, rows: list[dict]) -> dict:
    """The content of `results.json`.

    Args:
        trainer: after training.
        leaks: the result of `ser_mtl.corpora.leaks.find_leaks`.
        rows: predictions of the test fold, not calibrated; empty without a test fold.
    """
    record, parts = trainer.record, trainer.parts
    dev = trainer.dev_predictions
    trained_on = set(parts["train"]["speaker"][:])
    tested = set(parts["test"]["speaker"][:]) if "test" in parts else set()
    return {
        "stage": record["stage"],
        "fold": record["corpus"]["fold"],
        "seed": trainer.args.seed,
        "corpus": name_in_results(record["corpus"]["corpus"]),
        "encoder": trainer.start.encoder,
        **({"stage1": record["method"]["stage1"]} if record["stage"] == 2 else {}),
        **({"new_heads": list(trainer.start.new_heads)} if trainer.start.new_heads else {}),
        "tasks": trainer.stage.tasks,
        "trainable": trainer.stage.trainable,
        "selection": record["training"]["selection"],
        **({"refit": True} if record["corpus"].get("refit") else {}),
        **({"augment": trainer.args.augment} if trainer.args.augment else {}),
        **({"research": trainer.research} if trainer.research else {}),
        **progress_of(trainer),
        **({"class_weights": record["class_weights"]} if "class_weights" in record else {}),
        **({"leaks": leaks} if leaks else {}),
        "calibration": calibration(rows, dev, trainer.before_dev),
        **({"line": trainer.line} if trainer.line else {}),
        "labels": trainer.labels,
        "sizes": {name: len(part) for name, part in parts.items()},
        "held_out_speakers": sorted(tested - trained_on - {None}),
        "commit": record["commit"],
        "versions": record["versions"],
        "base_transcribes": trainer.start.base_transcribes,
        **({"dev": metrics_of(trainer, dev)} if dev else {}),
        "test": metrics_of(trainer, rows) if rows else {},
        **({"intervals": intervals_over_speakers(rows), "speakers": len(tested - {None})} if rows else {}),
    }


def metrics_of(trainer: "SerMtlTrainer", rows: list[dict]) -> dict:
    """The metrics of prediction rows, by group of utterances."""
    references, predictions = references_and_predictions(rows)
    return metrics_by_group(trainer.metric, predictions, references)


def progress_of(trainer: "SerMtlTrainer") -> dict:
    """The epoch that was kept, that of an early stop, the minutes of training, and its speed."""
    state = trainer.state
    step = (state.best_global_step if trainer.args.load_best_model_at_end else None) or state.global_step
    seconds_per_epoch = float(np.sum(trainer.rows_of_parts["train"]["length"][:])) / SAMPLING_RATE
    seconds = trainer.stopwatch.seconds
    return {
        "epoch": round(step * state.epoch / state.global_step, 2),
        **({"stopped_at_epoch": round(state.epoch, 2)} if state.global_step < state.max_steps else {}),
        "minutes": round((trainer.seconds_before + seconds) / 60, 2),
        "audio_seconds_per_second": round(seconds_per_epoch * state.epoch / seconds, 1),
    }


def save_results(trainer: "SerMtlTrainer", results: dict, rows: list[dict]) -> dict:
    """Write the results beside the model; `results.json` last, as the sign that the run is complete.

    Returns:
        The results, with the size of the model in the process that writes them.
    """
    if not trainer.is_world_process_zero():
        return results
    folder = Path(trainer.args.output_dir)
    if rows:
        temperature = results["calibration"].get("temperature", 1.0)
        write_predictions(folder / "predictions.jsonl", calibrated(rows, temperature))
    write_json(folder / "history.json", trainer.history)
    evaluated_on = "Test fold (oracle)" if results["selection"] == "oracle" else "Development set"
    curves = folder / "training_curves.png"
    plot_training_curves(
        trainer.history or [], curves, results["epoch"], evaluated_on, title_of(results), line_of_curves(results)
    )
    if rows and "emotion" in results["tasks"]:
        plot_emotion(results, rows, folder, f"Emotion, {title_of(results)}")
    if rows and trainer.values:
        plot_values(rows, trainer.values, folder / "values.png", f"Values, {title_of(results)}")
    results = with_folds(folder, results | {"size": size_of(folder, results)})
    write_text(folder / "README.md", model_card(results))
    write_json(folder / "results.json", results)
    clear_up(folder)
    return results


def line_of_curves(results: dict) -> float | None:
    """The line's UA on the utterances of the curves: on test with `--selection oracle`, else on dev."""
    if not (line := results.get("line")):
        return None
    if results["selection"] == "oracle":
        return line["ua"]
    return line["chosen_ua"] if line["chosen_on"] == "dev" else None


def clear_up(folder: Path) -> None:
    """Delete the files that a finished run does not need, also those of an interruption, and unlock the folder."""
    tidy(folder, OF_A_FINISHED_RUN)
    tidy(search_folder(folder), OF_A_FINISHED_RUN)
    release(folder)


def title_of(results: dict) -> str:
    """The title of a run's figures."""
    return f"{results['corpus']}, stage {results['stage']}, {part_of(results)}"


def plot_emotion(results: dict, rows: list[dict], folder: Path, title: str) -> None:
    """Draw the confusion matrix of the emotions on the test set, and the reliability of their probabilities."""
    emotion, fitted = results["test"]["all"]["emotion"], results["calibration"]
    plot_confusion_matrix(emotion["confusion_matrix"], emotion["labels"], folder / "confusion_matrix.png", title)
    probabilities, targets = emotion_probabilities(rows)
    plot_reliability(probabilities, targets, folder / "reliability.png", title, fitted.get("temperature"))


def show(results: dict, args: SerMtlArguments) -> None:
    """Print the table of a finished run and where its files are, after clearing up."""
    if args.process_index != 0:
        return
    clear_up(Path(args.output_dir))
    blocks = filter(None, [results_table(results), interval_lines(results)])
    print("\n" + "\n\n".join(blocks) + "\n")
    epoch = f"epoch {results['epoch']:g} kept by --selection {results['selection']}, {results['minutes']} min"
    if "stopped_at_epoch" in results:
        epoch += f"\nstopped early, after epoch {results['stopped_at_epoch']:g} (--early_stopping_patience)"
    epoch += "; trained on train and dev (--refit)" if results.get("refit") else ""
    print(f"stage {results['stage']}, {part_of(results)}, {epoch}\n")
    if below_line(results):
        lost = "dev" in results.get("sizes", {})  # else dev took no speakers from training
        speakers = "the speakers that dev takes from training (--refit), " if lost else ""
        print(f"{HELP_BELOW_THE_LINE.format(speakers=speakers)}\n")
    print(f"Model, results, figures and card: {printable(str(args.output_dir))}")
    known = results["corpus"] != "demo" and "research" not in results  # a model that `ser-mtl predict` is of use for
    if {"emotion", *VALUE_TASKS} & {*results["tasks"]} and known:
        print(f"\nNext: {_program()} predict my_recording.wav --model {printable(str(args.output_dir))}")
    if results["test"].get("all", {}).get("emotion"):
        print(f"Look at {Path(args.output_dir) / 'confusion_matrix.png'}: which emotions are confused")


def _program() -> str:
    """The command that starts `ser-mtl`: the environment of a script may not be activated."""
    return "ser-mtl" if shutil.which("ser-mtl") else os.path.relpath(Path(sys.executable).with_name("ser-mtl"))
