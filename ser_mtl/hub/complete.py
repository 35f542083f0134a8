"""Checking that a run folder is complete: every file that is published is there and readable."""

import math
from collections.abc import Callable
from pathlib import Path

from PIL import Image
from safetensors import SafetensorError, safe_open

from ser_mtl.errors import UserError
from ser_mtl.evaluation.predictions import read_predictions
from ser_mtl.evaluation.results import Results
from ser_mtl.files import read_json

NEEDED = (
    "config.json", "vocab.json", "tokenizer_config.json", "processor_config.json", "preprocessor_config.json",
    "args.json", "split.json", "history.json", "training_curves.png",
)  # fmt: skip
"""Files of every finished run, apart from weights."""
OF_TEST = ("predictions.jsonl",)
"""Further files of a run with a test."""
OF_EMOTION = ("confusion_matrix.png", "reliability.png")
MAYBE = ("values.png", "gradient_cosines.json", "gradient_cosines.png")

TRAINED = {
    "all": "all parameters",
    "adapters": "adapters and heads",
    "heads": "heads and the weights of the encoder's layers",
}
SELECTION = {
    "dev": "the epoch with the best emotion UA on the development set; the test fold had no part in the choice",
    "last": "the last epoch; nothing was chosen",
    "oracle": "the epoch with the best emotion UA on the test fold itself",
}
"""The values of `--trainable` and `--selection` in `results.json`, in the words of the card."""


def selection_of(results: dict) -> str:
    """Which epoch was kept, in the words of the card."""
    text = SELECTION[results["selection"]]
    return text if "emotion" in results["tasks"] else text.replace("emotion UA", "mean CCC of the values")


def holds_adapters(results: dict) -> bool:
    """Whether the run's weights are only adapters; a merged run's are not."""
    return results["trainable"] == "adapters" and not results.get("merged")


def weights_of(results: dict) -> tuple[str, ...]:
    """The files with the weights of a run."""
    return ("adapter_model.safetensors", "adapter_config.json") if holds_adapters(results) else ("model.safetensors",)


def read_results(run: Path) -> dict:
    """The `results.json` of a finished run.

    Raises:
        UserError: the file is missing or damaged, the run has no weights or is of an earlier system, or one of its
            files is a link.
    """
    if not (run / "results.json").is_file():
        raise UserError(f"{run}: holds no finished run (no results.json)")
    results = read_json(run / "results.json", Results)
    for name, known in (("trainable", TRAINED), ("selection", SELECTION)):
        if results[name] not in known:
            raise UserError(f"{run / 'results.json'}: is damaged: {name!r} must be one of {', '.join(known)}")
    if "research" in results:
        raise UserError(f"{run}: is of an earlier system ({results['research']}), and neither published nor exported")
    weights = weights_of(results)
    if not (run / weights[0]).is_file():
        raise UserError(f"{run}: holds results but no weights ({weights[0]})")
    for name in sorted({*weights, *NEEDED, *OF_TEST, *OF_EMOTION, *MAYBE, "results.json"}):
        if (run / name).is_symlink():  # it could publish any file of this machine
            raise UserError(f"{run / name}: is a link, which is not followed; put the file itself there")
    return results


def read_complete(run: Path) -> dict:
    """The `results.json` of a run whose files are all there and whole.

    Raises:
        UserError: names the file that is missing or damaged.
    """
    results = read_results(run)
    of_test = (*OF_TEST, *(OF_EMOTION if "emotion" in results["tasks"] else ())) if results["test"] else ()
    needed = [*weights_of(results), *NEEDED, *of_test]
    for name in [*needed, *(name for name in MAYBE if (run / name).is_file())]:
        if not (run / name).is_file():
            raise UserError(f"{run / name}: is missing; only whole runs are published. {_AGAIN}")
        _READERS[Path(name).suffix](run / name)
    if not results["test"]:
        return results
    rows, tested = len(read_predictions(run / "predictions.jsonl")), results["test"]["all"]["n"]
    if rows != tested:
        raise UserError(f"{run / 'predictions.jsonl'}: is damaged: it has {rows} of {tested} utterances. {_AGAIN}")
    return results


_AGAIN = "Take the file from where the run was trained, or train it again in a new folder"


def _read_weights(file: Path) -> None:
    try:
        with safe_open(file, "numpy") as weights:
            names = list(weights.keys())
    except (SafetensorError, OSError) as error:
        raise UserError(f"{file}: is damaged: {error}. {_AGAIN}") from error
    if not names:
        raise UserError(f"{file}: is damaged: it holds no weights. {_AGAIN}")


def _read_figure(file: Path) -> None:
    try:
        with Image.open(file) as image:
            image.load()
    except (OSError, SyntaxError, ValueError) as error:
        raise UserError(f"{file}: is damaged: {error}. {_AGAIN}") from error


def _read_content(file: Path) -> None:
    read_json(file, list if file.name == "history.json" else dict)


_READERS: dict[str, Callable[[Path], object]] = {
    ".safetensors": _read_weights, ".json": _read_content, ".jsonl": read_predictions, ".png": _read_figure,
}  # fmt: skip


def size_of(run: Path, results: dict) -> dict[str, float]:
    """The parameters in a run's own file of weights, and its megabytes."""
    file = run / weights_of(results)[0]
    with safe_open(file, "numpy") as weights:
        shapes = [weights.get_slice(name).get_shape() for name in list(weights.keys())]
    return {"parameters": sum(map(math.prod, shapes)), "megabytes": round(file.stat().st_size / 1e6, 1)}
