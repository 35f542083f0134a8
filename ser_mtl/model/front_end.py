"""Features of a frozen front end: computed once per utterance, and kept on disk for later runs."""

import hashlib
import sys
from collections.abc import Iterable
from importlib.metadata import version

import torch
from datasets import Dataset, Features, List, Value, concatenate_datasets
from torch import Tensor
from transformers import SequenceFeatureExtractor

import encoders_ser_mtl
import modeling_ser_mtl
import recordings_ser_mtl
from modeling_ser_mtl import SerMtlModel
from recordings_ser_mtl import waveforms
from ser_mtl.corpora.audio import samples_identity
from ser_mtl.corpora.cache import cached_map, source_digest
from ser_mtl.model import fast_front_end
from ser_mtl.model.fast_front_end import extract_features


def front_end_is_frozen(model: SerMtlModel) -> bool:
    """Whether training leaves the convolutional front end as it is."""
    return not any(parameter.requires_grad for parameter in model.front_end_parameters())


@torch.no_grad()  # not inference_mode: the model is moved to its device here, and is trained afterwards
def with_features(
    corpus: Dataset, model: SerMtlModel, feature_extractor: SequenceFeatureExtractor, device: torch.device
) -> Dataset:
    """Replace the column `samples` by `features` (frames x channels, flat) and `frames`, their number.

    Everything after the front end, SpecAugment and dropout included, is unchanged. The features are kept under a name
    made of the samples and of the front end's weights, code and libraries, so that a later run with the same front end
    opens them.
    """
    model = model.to(device).eval()

    def compute(row: dict) -> dict:
        batch = waveforms([row["samples"]], feature_extractor)
        features, lengths = extract_features(model, batch["input_values"].to(device))
        features = features[0, : int(lengths[0])].float().cpu().numpy()
        return {"features": features.ravel(), "frames": len(features)}

    computed = cached_map(
        corpus.select_columns("samples").with_format("numpy"),
        compute,
        Features({"features": List(Value("float32")), "frames": Value("int64")}),
        "features",
        _identity(corpus, model, feature_extractor, device),
        desc="front end, once an utterance",
        remove_columns="samples",
        writer_batch_size=100,
    )
    return concatenate_datasets([corpus.remove_columns("samples"), computed.with_format(None)], axis=1)


def _identity(
    corpus: Dataset, model: SerMtlModel, feature_extractor: SequenceFeatureExtractor, device: torch.device
) -> tuple:
    """All that the features depend on: samples, weights, settings, code, libraries and the kind of device."""
    code = source_digest(modeling_ser_mtl, encoders_ser_mtl, recordings_ser_mtl, fast_front_end, sys.modules[__name__])
    libraries = [version(package) for package in ("torch", "transformers")]
    # Without dropout and the like, which are a run's own: runs with the same front end share the file.
    encoder = model.config.encoder_config.to_dict()
    settings = [(name, encoder[name]) for name in sorted(encoder) if name.startswith(("model_type", "conv", "feat_ex"))]
    settings += [("do_normalize", feature_extractor.do_normalize)]
    return (
        samples_identity(corpus),
        weights_digest(model.front_end_parameters()),
        settings,
        code,
        libraries,
        device.type,
    )


def weights_digest(weights: Iterable[Tensor]) -> str:
    """SHA-256 over the values of weights, in their order."""
    digest = hashlib.sha256()
    for weight in weights:
        digest.update(weight.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
