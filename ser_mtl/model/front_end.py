"""Features of a frozen front end: computed once per utterance, and cached on disk for later runs."""

import hashlib
import pickle
import shutil
import sys
from collections.abc import Iterable
from importlib.metadata import version

import numpy as np
import torch
from datasets import Dataset, Features, List, Value, concatenate_datasets
from datasets.table import ConcatenationTable
from torch import Tensor
from transformers import SequenceFeatureExtractor

import encoders_ser_mtl
import modeling_ser_mtl
import recordings_ser_mtl
from modeling_ser_mtl import SerMtlModel
from recordings_ser_mtl import SAMPLING_RATE, waveforms
from ser_mtl.corpora import sixteen_bits
from ser_mtl.corpora.cache import Part, cache_folder, computed, missing, parts_of, source_digest
from ser_mtl.corpora.sixteen_bits import packed
from ser_mtl.errors import UserError, notice
from ser_mtl.model import fast_front_end
from ser_mtl.model.fast_front_end import extract_features, receptive_field

SHARE = 0.5
"""The largest share of the free space that the features may take, unless they are always to be cached."""
ANNOUNCED = 100e6
"""Bytes from which on a notice announces their size."""

_PART = 1_000 * SAMPLING_RATE  # samples of the utterances whose features are in one file
_BATCH = 60 * SAMPLING_RATE  # samples that go through the front end at once
_FEATURES = Features({"features": List(Value("int16")), "scales": List(Value("float32"))})
_UNITS = {"TB": 1e12, "GB": 1e9, "MB": 1e6, "kB": 1e3}


def front_end_is_frozen(model: SerMtlModel) -> bool:
    """Whether training leaves the convolutional front end as it is."""
    return not any(parameter.requires_grad for parameter in model.front_end_parameters())


@torch.no_grad()  # not inference_mode: the model is moved to its device here, and is trained afterwards
def with_features(
    corpus: Dataset,
    model: SerMtlModel,
    feature_extractor: SequenceFeatureExtractor,
    device: torch.device,
    always: bool = False,
) -> Dataset:
    """Replace the column `samples` by `features` and `scales`, see `ser_mtl.corpora.sixteen_bits`.

    Everything after the front end, including SpecAugment and dropout, is unchanged. The names of the cached files are
    hashes of the samples and of the front end's weights, code and libraries, so that a later run with the same front
    end opens them. Sizes from `ANNOUNCED` on are announced first.

    Args:
        corpus: with `samples`, `length` and `digest`, see `ser_mtl.corpora.audio.with_samples`.
        model: with a frozen front end.
        feature_extractor: the encoder's own.
        device: where the front end runs.
        always: cache them even if they take more than `SHARE` of the free space.

    Returns:
        The corpus with the new columns; unchanged if they would take too much space.

    Raises:
        UserError: `always`, and the disk does not have the room.
    """
    model = model.to(device).eval()
    identity = _identity(model, feature_extractor, device)
    rows, digests, lengths = corpus.select_columns(["samples", "length"]), corpus["digest"][:], corpus["length"][:]
    parts = parts_of(rows, "features", digests, identity, lengths, _PART)
    absent = missing(parts)
    if absent and not _has_room(model, absent, device, always):
        return corpus

    def compute(part: Part) -> None:
        part.write(_features_of(part.rows, model, feature_extractor, device), _FEATURES)

    kept = computed(parts, absent, compute, "Front end, once an utterance")
    return concatenate_datasets([corpus.remove_columns("samples"), kept], axis=1)


def _features_of(
    rows: Dataset, model: SerMtlModel, feature_extractor: SequenceFeatureExtractor, device: torch.device
) -> list[dict]:
    """The features of each row. Rows of similar length go through the front end together."""
    found: list[dict] = [{}] * len(rows)
    samples = _samples(rows)
    order = sorted(range(len(samples)), key=lambda row: -len(samples[row]))
    while order:
        count = max(1, _BATCH // max(1, len(samples[order[0]])))
        chosen, order = order[:count], order[count:]
        batch = waveforms([samples[row] for row in chosen], feature_extractor)
        inputs = (batch[name].to(device) for name in ("input_values", "attention_mask"))
        features, frames = extract_features(model, *inputs)
        for row, made, size in zip(chosen, features.float(), frames.tolist(), strict=True):
            found[row] = packed(made[:size])
    return found


def _samples(rows: Dataset) -> list[np.ndarray]:
    """The samples of each row, (samples,) int16.

    From a new mapping of the file, released with them: in the corpus's own mapping, samples stay in memory once read.
    """
    if rows._indices is not None:  # a selection, whose rows are not those of its table
        return [row.values.to_numpy() for row in rows.with_format("arrow")[:]["samples"]]
    blocks = getattr(rows.data, "blocks", [[rows.data]])
    tables = [next(block for block in row if "samples" in block.column_names).select(["samples"]) for row in blocks]
    again = pickle.loads(pickle.dumps(ConcatenationTable.from_tables(tables)))
    return [row.values.to_numpy() for row in again["samples"]]


def _has_room(model: SerMtlModel, absent: list[Part], device: torch.device, always: bool) -> bool:
    """Whether the absent features are to be cached; a notice says how much space they take or would take.

    Raises:
        UserError: `always`, and the disk does not have the room.
    """
    field, _ = receptive_field(model)
    channels = extract_features(model, torch.zeros(1, field, device=device))[0].shape[2]
    lengths = [length for part in absent for length in part.rows["length"][:]]
    needed = int(model.frame_lengths(torch.tensor(lengths)).sum()) * (2 * channels + 4)
    cache_folder().mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(cache_folder()).free
    sizes = f"{_size(needed)} in {cache_folder()}, where {_size(free)} are free"
    if always and needed > free:
        raise UserError(f"--front_end_cache always: takes {sizes}; free some, set HF_DATASETS_CACHE, or use auto")
    if always or needed <= SHARE * free:
        if needed >= ANNOUNCED:
            notice(f"front end: its output is kept, {sizes}")
        return True
    notice(
        f"front end: runs in every step; its output would take {sizes} (--front_end_cache auto takes up to "
        f"{SHARE:.0%} of that; always takes it all)"
    )
    return False


def _size(number: float) -> str:
    return next(f"{number / unit:.1f} {name}" for name, unit in _UNITS.items() if number >= unit or name == "kB")


def _identity(model: SerMtlModel, feature_extractor: SequenceFeatureExtractor, device: torch.device) -> tuple:
    """Everything but the samples that the features depend on: weights, settings, code, libraries, kind of device."""
    code = source_digest(
        modeling_ser_mtl, encoders_ser_mtl, recordings_ser_mtl, fast_front_end, sixteen_bits, sys.modules[__name__]
    )
    libraries = [version(package) for package in ("torch", "transformers")]
    # Without dropout and the like, which are a run's own: runs with the same front end share the file.
    encoder = model.config.encoder_config.to_dict()
    settings = [(name, encoder[name]) for name in sorted(encoder) if name.startswith(("model_type", "conv", "feat_ex"))]
    settings += [("do_normalize", feature_extractor.do_normalize)]
    return weights_digest(model.front_end_parameters()), settings, code, libraries, device.type


def weights_digest(weights: Iterable[Tensor]) -> str:
    """SHA-256 over the values of weights, in their order."""
    digest = hashlib.sha256()
    for weight in weights:
        digest.update(weight.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
