"""Features of a frozen front end: computed once per utterance, and kept on disk for later runs."""

import hashlib

import torch
from datasets import Dataset, Features, List, Value, concatenate_datasets
from transformers import SequenceFeatureExtractor

from modeling_ser_mtl import SerMtlModel
from ser_mtl.corpora.audio import cache_file, files_identity
from ser_mtl.corpora.batching import waveforms
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
    made of the samples' and the front end's content, so that a later run with the same front end opens them.
    """
    model = model.to(device).eval()
    identity = (files_identity(corpus), _weights_digest(model), feature_extractor.do_normalize)
    file = cache_file("features", identity)

    def compute(row: dict) -> dict:
        batch = waveforms([row["samples"]], feature_extractor)
        features, lengths = extract_features(model, batch["input_values"].to(device))
        features = features[0, : int(lengths[0])].float().cpu().numpy()
        return {"features": features.ravel(), "frames": len(features)}

    computed = (
        corpus.select_columns("samples")
        .with_format("numpy")
        .map(
            compute,
            desc="front end, once an utterance",
            remove_columns="samples",
            features=Features({"features": List(Value("float32")), "frames": Value("int64")}),
            cache_file_name=str(file),
            new_fingerprint=file.stem,
            writer_batch_size=100,
        )
    )
    return concatenate_datasets([corpus.remove_columns("samples"), computed.with_format(None)], axis=1)


def _weights_digest(model: SerMtlModel) -> str:
    digest = hashlib.sha256()
    for parameter in model.front_end_parameters():
        digest.update(parameter.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
