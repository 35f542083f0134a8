"""The line of a run, its linear-probe baseline: a logistic regression on the frozen encoder, on the run's own parts."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from accelerate.utils import broadcast_object_list
from datasets import Dataset
from torch import Tensor
from transformers.utils import cached_file
from typing_extensions import TypedDict

from modeling_ser_mtl import SerMtlModel, masked_mean
from ser_mtl.corpora.augmentation import Augmented
from ser_mtl.corpora.batching import Collator
from ser_mtl.corpora.split_record import Split
from ser_mtl.errors import UserError
from ser_mtl.evaluation.line import Pooled, fit_line
from ser_mtl.evaluation.results import Line, line_note
from ser_mtl.files import read_json
from ser_mtl.model.fast_front_end import fast_inputs
from ser_mtl.training.adapters import unwrap
from ser_mtl.training.data import without_text

if TYPE_CHECKING:
    from ser_mtl.training.trainer import SerMtlTrainer

FILE_OF_LINE = "line.json"
"""The file that keeps the line of an unfinished run; afterwards it is in `results.json`."""

MOST = 10_000
"""The most training utterances that the line is fitted on, so that it takes a small part of an epoch's time."""


def line_of(trainer: "SerMtlTrainer") -> dict | None:
    """The line of a run that has not trained yet; the main process finds it, for all.

    A resumed run has it in its folder. Stage 2 takes stage 1's, that of the pretrained encoder, if both have the same
    utterances and labels; otherwise it is fitted on the encoder as stage 1 left it.

    Returns:
        As `fit_line`, with "encoder": "pretrained" or "stage 1"; None if emotion is not a task, train has a single
        emotion or test has none.
    """
    line = None
    with trainer.args.main_process_first(local=False, desc="frozen encoder"):
        if trainer.is_world_process_zero() and "emotion" in trainer.stage.tasks and "test" in trainer.parts:
            line = _kept(Path(trainer.args.output_dir) / FILE_OF_LINE) or _of_stage1(trainer) or _fitted(trainer)
            if line is not None and not trainer.args.disable_tqdm:
                print(f"To beat: {line_note({'line': line})}")
    return broadcast_object_list([line])[0]


def _kept(file: Path) -> dict | None:
    with suppress(UserError):  # missing or damaged: it is fitted again
        return read_json(file, Line)
    return None


class _WithLine(TypedDict, total=False):
    line: Line


def _of_stage1(trainer: "SerMtlTrainer") -> dict | None:
    """The line in the results of stage 1, if it is of the same utterances and labels."""
    stage1 = getattr(trainer.stage, "stage1", None)
    if stage1 is None:
        return None
    with suppress(OSError, UserError):  # stage 1 has no record of its line
        line = read_json(cached_file(stage1, "results.json"), _WithLine).get("line")
        if line and _content(read_json(cached_file(stage1, "split.json"), Split)) == _content(trainer.data_record()):
            return line
    return None


def _content(split: dict) -> tuple:
    """Hashes that are equal if two runs have the same utterances and labels."""
    return split.get("annotations"), *(split.get(part, {}).get("sha256") for part in ("train", "dev", "test"))


def _fitted(trainer: "SerMtlTrainer") -> dict | None:
    parts = pooled_parts(trainer, _layers)
    if parts is None or "test" not in parts:
        return None
    line = fit_line(parts["train"], parts.get("dev"), parts["test"])
    return line | {"encoder": "pretrained" if trainer.stage.number == 1 else "stage 1"}


def pooled_parts(trainer: "SerMtlTrainer", pool: "Pool") -> dict[str, Pooled] | None:
    """The utterances with an emotion of each part that has any; None if train has fewer than two emotions."""
    rows = {part: _labelled(trainer, part) for part in ("train", "dev", "test")}
    emotions = trainer.corpus["emotion"][:]
    if len({emotions[row] for row in rows["train"]}) < 2:
        return None
    rows["train"] = np.sort(np.random.default_rng(0).permutation(rows["train"])[:MOST])
    chosen = np.unique(np.concatenate(list(rows.values())))
    model = unwrap(trainer.accelerator.unwrap_model(trainer.model))
    inputs = without_text(trainer.corpus).select(chosen)
    layers = pooled_layers(model, inputs, trainer.data_collator, trainer.args.per_device_eval_batch_size, pool)
    utterances = trainer.corpus.select(chosen)
    pooled = Pooled(layers, np.array(utterances["emotion"][:]), _groups(utterances))
    return {part: pooled[np.searchsorted(chosen, those)] for part, those in rows.items() if len(those)}


def _labelled(trainer: "SerMtlTrainer", part: str) -> np.ndarray:
    """Rows of a part's utterances with an emotion."""
    ids = set(trainer.parts[part]["id"]) if part in trainer.parts else ()
    known = zip(trainer.corpus["id"][:], trainer.corpus["emotion"][:], strict=True)
    return np.array(
        [row for row, (name, emotion) in enumerate(known) if name in ids and emotion is not None], dtype=int
    )


def _groups(utterances: Dataset) -> np.ndarray:
    """The speaker of each utterance; where it is unknown, the fold, which also keeps speakers apart."""
    known = zip(utterances["speaker"][:], utterances["fold"][:], strict=True)
    return np.array([f"fold {fold}" if speaker is None else f"speaker {speaker}" for speaker, fold in known])


Pool = Callable[[SerMtlModel, Tensor, Tensor], Tensor]
"""Model, features (batch, frames, channels), real frames (batch,) -> a classifier's input, (batch, layers, d)."""


def _layers(model: SerMtlModel, features: Tensor, lengths: Tensor) -> Tensor:
    """The mean over real frames of every hidden state."""
    _, mask, states = model.encode(features, lengths)
    return torch.stack([masked_mean(state, mask) for state in states], dim=1)


@torch.no_grad()
def pooled_layers(
    model: SerMtlModel, inputs: Dataset | Augmented, collator: Collator, batch_size: int, pool: Pool = _layers
) -> np.ndarray:
    """The result of `pool` for each utterance, in float32 and without dropout: by default (utterances, layers + 1, d).

    Args:
        model: not wrapped, on its device.
        inputs: rows for batches.
        collator: makes the batches.
        batch_size: utterances of similar length in each.
        pool: see `Pool`; by default, the mean over real frames of every hidden state.
    """
    rows = inputs.rows if isinstance(inputs, Augmented) else inputs
    order = np.argsort(rows["length"][:], kind="stable")
    training = model.training
    model.eval()
    pooled = []
    for first in range(0, len(order), batch_size):
        batch = collator([inputs[int(i)] for i in order[first : first + batch_size]])
        audio = fast_inputs(model, {name: batch[name].to(model.device) for name in _INPUTS if name in batch})
        features = (
            (audio["features"], audio["frame_lengths"]) if "features" in audio else model.extract_features(**audio)
        )
        pooled.append(pool(model, *features).float().cpu())
    model.train(training)
    return torch.cat(pooled).numpy()[np.argsort(order)]


_INPUTS = ("input_values", "attention_mask", "features", "frame_lengths")
