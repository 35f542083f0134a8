"""What a finished run leaves: predictions of the test fold, figures, model, pictures, card."""

import shutil
from pathlib import Path

from datasets import DatasetDict
from peft import PeftModel
from transformers.dynamic_module_utils import custom_object_save

from ser_mtl.corpora.folds import split_record
from ser_mtl.evaluation.calibration import emotion_probabilities
from ser_mtl.evaluation.embeddings import two_dimensions
from ser_mtl.evaluation.figures import plot_confusion_matrix, plot_reliability, plot_training_curves
from ser_mtl.evaluation.predictions import references_and_predictions, write_predictions
from ser_mtl.evaluation.results import results_table
from ser_mtl.evaluation.scores import SerMtlMetric, metrics_by_group
from ser_mtl.files import write_json, write_text
from ser_mtl.hub.card import model_card
from ser_mtl.training.adapters import unwrap
from ser_mtl.training.arguments import RunArguments
from ser_mtl.training.start import Start
from ser_mtl.training.trainer import SerMtlTrainer


def predict_dev(trainer: SerMtlTrainer, data: DatasetDict) -> list[dict] | None:
    """Predict dev, on which the temperature is fitted; None where there is none."""
    if "dev" not in data:
        return None
    predicted = trainer.predict(data["dev"])
    return trainer.rows(predicted.predictions, predicted.label_ids)


def predict_test(trainer: SerMtlTrainer, data: DatasetDict, start: Start) -> list[dict]:
    """Predict the test fold; adapters on a model that transcribes without them too, both with and without them."""
    predicted = trainer.predict(data["test"])
    embedded = {name.removesuffix("_embedding"): x for name, x in predicted.predictions.items() if "_embedding" in name}
    more = {"points": two_dimensions(embedded)} if embedded else {}
    if isinstance(trainer.model, PeftModel) and "asr" in predicted.predictions and start.base_transcribes:
        with trainer.accelerator.unwrap_model(trainer.model).disable_adapter():
            stage1 = trainer.predict(data["test"])
        # Both come back in the order of the test set, so row i is the same utterance.
        more["hypotheses_adapters_off"] = trainer.transcripts(stage1.predictions["asr"])
    return trainer.rows(predicted.predictions, predicted.label_ids, **more)


def results_of(record: dict, measured: dict, splits: DatasetDict, start: Start, rows: list[dict]) -> dict:
    """What `results.json` holds: what the run was, what was `measured` on its way, and the figures of the test."""
    references, predictions = references_and_predictions(rows)
    corpus, method = record["corpus"], record["method"]
    return {
        "stage": record["stage"],
        "fold": corpus["fold"],
        "seed": record["training"]["seed"],
        "corpus": corpus["corpus"],
        "encoder": start.encoder,
        **({"stage1": method["stage1"]} if record["stage"] == 2 else {}),
        "tasks": method["tasks"],
        "trainable": method["trainable"],
        "selection": method["selection"],
        **measured,
        "labels": start.labels,
        "sizes": {name: len(part) for name, part in splits.items()},
        "held_out_speakers": sorted(set(splits["test"]["speaker"]) - {None}),
        "commit": record["commit"],
        "versions": record["versions"],
        "test": metrics_by_group(SerMtlMetric(start.labels), predictions, references),
    }


def save_run(trainer: SerMtlTrainer, record: dict, results: dict, rows: list[dict], splits: DatasetDict) -> None:
    """Write all that a run leaves; `results.json` last, as the sign that the run is whole."""
    if not trainer.is_world_process_zero():
        return
    folder = Path(trainer.args.output_dir)
    model = trainer.accelerator.unwrap_model(trainer.model)
    unwrap(model).config.temperature = results["calibration"].get("temperature", 1.0)
    model.save_pretrained(folder)
    # PEFT saves adapters alone; the Auto classes want the modeling file and, in the config, its classes.
    custom_object_save(unwrap(model), folder, config=unwrap(model).config)
    unwrap(model).config.save_pretrained(folder)
    trainer.processing_class.save_pretrained(folder)
    write_predictions(folder / "predictions.jsonl", rows)
    write_json(folder / "split.json", split_record(splits, results["fold"], record["corpus"]["dev"]))
    history = trainer.state.log_history
    write_json(folder / "history.json", history)
    evaluated_on = "Test fold (oracle)" if results["selection"] == "oracle" else "Development set"
    plot_training_curves(history, folder / "training_curves.png", results["epoch"], evaluated_on)
    if "emotion" in results["tasks"]:
        draw_emotion(results, rows, folder)
    write_text(folder / "README.md", model_card(results))
    write_json(folder / "results.json", results)
    for checkpoint in folder.glob("checkpoint-*"):
        shutil.rmtree(checkpoint)


def draw_emotion(results: dict, rows: list[dict], folder: Path) -> None:
    """Draw the confusion of the emotions and how far their probabilities can be believed, on the test."""
    emotion, calibration = results["test"]["all"]["emotion"], results["calibration"]
    title = f"Emotion, {results['corpus']}, stage {results['stage']}, fold {results['fold']}"
    plot_confusion_matrix(emotion["confusion_matrix"], emotion["labels"], folder / "confusion_matrix.png", title)
    probabilities, targets = emotion_probabilities(rows)
    plot_reliability(probabilities, targets, folder / "reliability.png", title, calibration.get("temperature"))


def show(results: dict, args: RunArguments) -> None:
    """Print the table of a finished run, and where everything is."""
    if args.process_index != 0:
        return
    print(f"\n{results_table(results)}\n")
    kept = f"epoch {results['epoch']:g} kept by --selection {results['selection']}, {results['minutes']} min"
    print(f"stage {results['stage']}, fold {results['fold']}, {kept}\n")
    for path in sorted(Path(args.output_dir).iterdir()):
        print(f"  {path}")
