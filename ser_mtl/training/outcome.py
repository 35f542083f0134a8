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
from ser_mtl.evaluation.figures import plot_confusion_matrix, plot_reliability, plot_training_curves
from ser_mtl.evaluation.predictions import references_and_predictions, write_predictions
from ser_mtl.evaluation.results import results_table
from ser_mtl.evaluation.scores import metrics_by_group
from ser_mtl.evaluation.value_figure import plot_values
from ser_mtl.files import write_json, write_text
from ser_mtl.hub.card import model_card
from ser_mtl.hub.complete import size_of
from ser_mtl.lock import lock, release
from ser_mtl.safe_text import printable
from ser_mtl.tasks import VALUE_TASKS
from ser_mtl.training.arguments import SerMtlArguments
from ser_mtl.training.checkpoints import OF_A_FINISHED_RUN, tidy

if TYPE_CHECKING:
    from ser_mtl.training.trainer import SerMtlTrainer


def finish_run(trainer: "SerMtlTrainer", leaks: dict | None = None) -> dict:
    """Evaluate a trained model on the test fold, and write everything that a finished run has.

    Args:
        trainer: after `train`.
        leaks: of `ser_mtl.corpora.leaks.find_leaks`, if they are known already.

    Returns:
        The content of `results.json`.

    Raises:
        UserError: nothing is trained yet, there is no test fold, or another run is at work in the folder.
    """
    if trainer.history is None:
        raise UserError("finish: this Trainer has not trained yet; call train() first")
    if "test" not in trainer.parts:
        raise UserError("finish: parts has no 'test' to evaluate on; see ser_mtl.split")
    if trainer.is_world_process_zero():
        lock(Path(trainer.args.output_dir))
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
    more: dict[str, Any] = {"points": two_dimensions(embeddings)} if embeddings else {}
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
        leaks: of `ser_mtl.corpora.leaks.find_leaks`.
        rows: predictions of the test fold, not calibrated.
    """
    record, parts = trainer.record, trainer.parts
    references, predictions = references_and_predictions(rows)
    return {
        "stage": record["stage"],
        "fold": record["corpus"]["fold"],
        "seed": trainer.args.seed,
        "corpus": name_in_results(record["corpus"]["corpus"]),
        "encoder": trainer.start.encoder,
        **({"stage1": record["method"]["stage1"]} if record["stage"] == 2 else {}),
        "tasks": trainer.stage.tasks,
        "trainable": trainer.stage.trainable,
        "selection": trainer.args.selection,
        **({"augment": trainer.args.augment} if trainer.args.augment else {}),
        **progress_of(trainer),
        "leaks": leaks,
        "calibration": calibration(rows, trainer.dev_predictions, set(parts["train"]["speaker"])),
        "labels": trainer.labels,
        "sizes": {name: len(part) for name, part in parts.items()},
        "held_out_speakers": sorted(set(parts["test"]["speaker"]) - set(parts["train"]["speaker"]) - {None}),
        "commit": record["commit"],
        "versions": record["versions"],
        "test": metrics_by_group(trainer.metric, predictions, references),
    }


def progress_of(trainer: "SerMtlTrainer") -> dict:
    """The epoch that was kept, the minutes of all training, and its speed."""
    state = trainer.state
    step = (state.best_global_step if trainer.args.load_best_model_at_end else None) or state.global_step
    seconds_per_epoch = float(np.sum(trainer.rows_of_parts["train"]["length"])) / SAMPLING_RATE
    seconds = trainer.stopwatch.seconds
    return {
        "epoch": round(step * state.epoch / state.global_step, 2),
        "minutes": round(seconds / 60, 2),
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
    write_predictions(folder / "predictions.jsonl", calibrated(rows, results["calibration"].get("temperature", 1.0)))
    write_json(folder / "history.json", trainer.history)
    evaluated_on = "Test fold (oracle)" if results["selection"] == "oracle" else "Development set"
    curves = folder / "training_curves.png"
    plot_training_curves(trainer.history, curves, results["epoch"], evaluated_on, title_of(results))
    if "emotion" in results["tasks"]:
        plot_emotion(results, rows, folder, f"Emotion, {title_of(results)}")
    if trainer.values:
        plot_values(rows, trainer.values, folder / "values.png", f"Values, {title_of(results)}")
    results = results | {"size": size_of(folder, results)}
    write_text(folder / "README.md", model_card(results))
    write_json(folder / "results.json", results)
    clear_up(folder)
    return results


def clear_up(folder: Path) -> None:
    """Delete what a finished run does not need any more; an interrupted one may have left it. Give the folder back."""
    tidy(folder, OF_A_FINISHED_RUN)
    release(folder)


def title_of(results: dict) -> str:
    """What a run is of, above its figures."""
    return f"{results['corpus']}, stage {results['stage']}, fold {results['fold']}"


def plot_emotion(results: dict, rows: list[dict], folder: Path, title: str) -> None:
    """Draw the confusion matrix of the emotions on the test set, and the reliability of their probabilities."""
    emotion, fitted = results["test"]["all"]["emotion"], results["calibration"]
    plot_confusion_matrix(emotion["confusion_matrix"], emotion["labels"], folder / "confusion_matrix.png", title)
    probabilities, targets = emotion_probabilities(rows)
    plot_reliability(probabilities, targets, folder / "reliability.png", title, fitted.get("temperature"))


def show(results: dict, args: SerMtlArguments) -> None:
    """Print the table of a finished run, and where everything is; first clear up what an interruption left."""
    if args.process_index != 0:
        return
    clear_up(Path(args.output_dir))
    print(f"\n{results_table(results)}\n")
    epoch = f"epoch {results['epoch']:g} kept by --selection {results['selection']}, {results['minutes']} min"
    print(f"stage {results['stage']}, fold {results['fold']}, {epoch}\n")
    print(f"Model, results, figures and card: {printable(str(args.output_dir))}")
    if {"emotion", *VALUE_TASKS} & {*results["tasks"]}:
        print(f"\nNext: {_program()} predict my_recording.wav --model {printable(str(args.output_dir))}")
    if "emotion" in results["tasks"]:
        print(f"Look at {Path(args.output_dir) / 'confusion_matrix.png'}: which emotions are confused")


def _program() -> str:
    """How to start `ser-mtl` here: a script runs in an environment that need not be activated."""
    return "ser-mtl" if shutil.which("ser-mtl") else os.path.relpath(Path(sys.executable).with_name("ser-mtl"))
