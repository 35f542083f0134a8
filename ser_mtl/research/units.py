"""Units: the number of each frame's cluster, by k-means on the frames of a trained model."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from safetensors.torch import load_file
from sklearn.cluster import MiniBatchKMeans

from modeling_ser_mtl import SerMtlConfig, SerMtlModel
from ser_mtl.corpora.batching import Collator
from ser_mtl.errors import UserError, hub_errors, notice
from ser_mtl.model.processor import load_processor
from ser_mtl.training.arguments import SerMtlArguments
from ser_mtl.training.data import model_inputs, without_text
from ser_mtl.training.earlier_run import check_finished
from ser_mtl.training.method import Start
from ser_mtl.training.stage import Stage

MOST = 200_000
"""The most frames that k-means is fitted on."""


def units_of(run: str, utterances: Dataset, sizes: list[int], stage: Stage, args: SerMtlArguments) -> list[np.ndarray]:
    """The units of every frame, by k-means on the last layer of a stage-1 model.

    Args:
        run: folder of the stage-1 run.
        utterances: the training set, without labels.
        sizes: numbers of clusters; those above the number of frames are left out, with a notice.
        stage: of the run that needs the units.
        args: of that run; the seed is used for k-means too.

    Returns:
        (frames, clusterings) of each utterance, in their order.

    Raises:
        UserError: the run is not finished, or cannot be loaded.
    """
    start = trained_model(run)
    rows = model_inputs(utterances, start, stage, args)
    model, collator = start.model.to(args.device).eval(), Collator(start.processor.feature_extractor)
    inputs, size = without_text(rows), args.per_device_eval_batch_size
    random = np.random.default_rng(args.seed)
    share = min(1.0, MOST / max(1, int(model.frame_lengths(torch.tensor(rows["length"][:])).sum())))
    sample = np.concatenate(
        [frames[random.random(len(frames)) < share] for _, frames in frames_of(model, inputs, collator, size)]
    )
    clusterings = fit_units(sample, usable(sizes, len(sample)), args.seed)
    units: list[np.ndarray] = [np.zeros(0)] * len(rows)
    for row, frames in frames_of(model, inputs, collator, size):
        units[row] = np.stack([one.predict(frames) for one in clusterings], axis=1)
    return units


def trained_model(run: str) -> Start:
    """The encoder of a stage-1 run, whatever its heads were.

    Raises:
        UserError: it is not finished, or cannot be loaded.
    """
    flag = f"--frames {run}"
    check_finished(Path(run), "--frames", stage=1)
    if not (Path(run) / "model.safetensors").is_file():
        raise UserError(f"{flag}: is not the folder of a finished stage-1 run of all parameters")
    with hub_errors(f"{flag}: cannot be loaded"):
        config = SerMtlConfig.from_pretrained(run)
        model, weights = SerMtlModel(config), load_file(Path(run) / "model.safetensors")
        encoder = {
            name.removeprefix("encoder."): value for name, value in weights.items() if name.startswith("encoder.")
        }
        model.encoder.load_state_dict(encoder)
        processor = load_processor(run, flag)
    return Start(model.requires_grad_(False), processor, config.labels, run)


@torch.no_grad()
def frames_of(
    model: SerMtlModel, rows: Dataset, collator: Collator, batch_size: int
) -> Iterator[tuple[int, np.ndarray]]:
    """The last layer's real frames of each utterance, with its row: (frames, d), in float32."""
    order = np.argsort(rows["length"][:], kind="stable")
    for first in range(0, len(order), batch_size):
        chosen = [int(row) for row in order[first : first + batch_size]]
        batch = {name: value.to(model.device) for name, value in collator([rows[row] for row in chosen]).items()}
        if "features" not in batch:
            batch["features"], batch["frame_lengths"] = model.extract_features(
                batch["input_values"], batch["attention_mask"]
            )
        frames, _, _ = model.encode(batch["features"], batch["frame_lengths"])
        for row, one, length in zip(chosen, frames.float().cpu().numpy(), batch["frame_lengths"].tolist(), strict=True):
            yield row, one[:length]


def usable(sizes: list[int], frames: int) -> list[int]:
    """The numbers of clusters up to the number of frames; a notice names the others.

    Raises:
        UserError: there is none.
    """
    if left_out := [size for size in sizes if size > frames]:
        notice(f"--units: {', '.join(map(str, left_out))} are more than the frames of the training set, {frames}")
    if len(left_out) == len(sizes):
        raise UserError(f"--units {' '.join(map(str, sizes))}: the training set has only {frames} frames")
    return [size for size in sizes if size <= frames]


def fit_units(sample: np.ndarray, sizes: list[int], seed: int) -> list[MiniBatchKMeans]:
    """k-means on frames, (n, d), for each number of clusters; the same under the same seed."""
    settings = {"random_state": seed, "max_iter": 20, "n_init": 1, "batch_size": 10_000}
    return [MiniBatchKMeans(size, **settings).fit(sample) for size in sizes]
