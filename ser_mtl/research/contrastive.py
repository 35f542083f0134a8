"""wav2vec 2.0's own pretraining by transformers' class, as TAPT continues it (Chen and Rudnicky 2023)."""

from pathlib import Path

import numpy as np
import torch
from datasets import DatasetDict
from torch import Tensor, nn
from transformers import SequenceFeatureExtractor, Wav2Vec2ForPreTraining, set_seed
from transformers.models.wav2vec2.modeling_wav2vec2 import _compute_mask_indices, _sample_negative_indices
from transformers.utils import logging

from recordings_ser_mtl import SAMPLING_RATE, waveforms
from ser_mtl.corpora.audio import with_samples
from ser_mtl.errors import UserError, hub_errors, notice
from ser_mtl.research.pretraining import FEWEST_SPANS, Pretrainer, Pretraining
from ser_mtl.training.arguments import SerMtlArguments
from ser_mtl.training.method import with_overrides
from ser_mtl.training.own_encoder import Pretrained, encoder_behind
from ser_mtl.training.saving import saving
from ser_mtl.training.stage1_start import feature_extractor_of, pretrained_encoder_config

MOST_SAMPLES = 10 * SAMPLING_RATE
"""The most samples of a crop."""


class Contrastive(nn.Module):
    """wav2vec 2.0's own loss, contrastive and diversity, per masked frame."""

    def __init__(self, model: Wav2Vec2ForPreTraining):
        super().__init__()
        self.model = model.requires_grad_(True)

    def forward(self, mask_time_indices: Tensor, **inputs: Tensor) -> dict[str, Tensor]:
        """The arguments of `Wav2Vec2ForPreTraining` -> its loss."""
        return {"loss": self.model(mask_time_indices=mask_time_indices, **inputs).loss / mask_time_indices.sum()}


class ContrastiveCollator:
    """Random crops, all as long as the batch's shortest utterance and at most 10 s, with masks and negatives.

    Nothing is padded, so no mask of real samples is needed.
    """

    def __init__(self, model: Wav2Vec2ForPreTraining, feature_extractor: SequenceFeatureExtractor):
        self.model, self.feature_extractor = model, feature_extractor

    def __call__(self, rows: list[dict]) -> dict[str, Tensor]:
        """Rows with `samples` -> a batch."""
        size, config = min(MOST_SAMPLES, *(len(row["samples"]) for row in rows)), self.model.config
        begins = [np.random.randint(len(row["samples"]) - size + 1) for row in rows]  # the Trainer keeps its state
        crops = [row["samples"][begin : begin + size] for row, begin in zip(rows, begins, strict=True)]
        shape = len(rows), frames_of(self.model, size)
        spans = {"mask_prob": config.mask_time_prob, "mask_length": config.mask_time_length}
        masked = _compute_mask_indices(shape, **spans, min_masks=FEWEST_SPANS)
        negatives = _sample_negative_indices(shape, config.num_negatives, masked)
        return {
            "input_values": waveforms(crops, self.feature_extractor)["input_values"],
            "mask_time_indices": torch.from_numpy(masked),
            "sampled_negative_indices": torch.from_numpy(negatives),
        }


def frames_of(model: Wav2Vec2ForPreTraining, samples: int) -> int:
    """Number of frames that the encoder makes of `samples`."""
    return int(model._get_feat_extract_output_lengths(samples))


def contrastive_pretrainer(stage: Pretraining, args: SerMtlArguments, parts: DatasetDict) -> Pretrainer:
    """The Trainer of TAPT: continue the pretraining of a wav2vec 2.0, all parameters, on `parts["train"]` alone.

    Raises:
        UserError: transformers cannot pretrain this encoder, or it cannot be loaded, or no utterance is long enough.
    """
    set_seed(args.seed)
    assert stage.encoder is not None  # the program has settled it
    model = pretraining_model(stage, encoder_behind(stage.encoder))
    extractor = feature_extractor_of(stage.encoder)
    utterances = with_samples(parts["train"], args.max_seconds)
    shortest = 2 * model.config.mask_time_length
    long = [row for row, length in enumerate(utterances["length"][:]) if frames_of(model, length) >= shortest]
    if len(long) < len(utterances):
        notice(f"{len(utterances) - len(long)} training utterances of fewer than {shortest} frames are left out")
    if not long:
        raise UserError("pretraining: no training utterance is long enough for masked spans")
    rows = utterances.select_columns(["samples", "length"]).select(long).with_format("numpy")

    def save(folder: Path) -> None:
        with saving(folder) as partial:
            model.save_pretrained(partial)
            extractor.save_pretrained(partial)

    return Pretrainer(Contrastive(model), args, utterances, rows, ContrastiveCollator(model, extractor), save)


def pretraining_model(stage: Pretraining, encoder: Pretrained) -> Wav2Vec2ForPreTraining:
    """The encoder under wav2vec 2.0's heads for pretraining, which are random if the checkpoint lacks them.

    Raises:
        UserError: the encoder is of another family, for which transformers has no loss, or cannot be loaded.
    """
    config = pretrained_encoder_config(encoder.name, encoder.revision)
    if encoder.own or config.model_type != "wav2vec2":
        what = "a model of this project" if encoder.own else config.model_type
        raise UserError(
            f"--encoder {encoder.name}: is {what}, which transformers cannot pretrain (only a stock wav2vec2); rows "
            "that need it cannot be trained with this encoder"
        )
    with hub_errors(f"--encoder {encoder.name}: its weights cannot be loaded"):
        load = {"config": with_overrides(config, stage), "revision": encoder.revision, "output_loading_info": True}
        verbosity = logging.get_verbosity()
        logging.set_verbosity_error()  # no report of what is missing: the lines below say it
        try:
            model, info = Wav2Vec2ForPreTraining.from_pretrained(encoder.name, **load)
        finally:
            logging.set_verbosity(verbosity)
    lost = {name for name in info["missing_keys"] if not name.endswith("masked_spec_embed")}
    if any(name.startswith("wav2vec2.") for name in lost):
        raise UserError(f"--encoder {encoder.name}: {len(lost)} of its weights are missing, such as {min(lost)}")
    if lost:
        notice(f"--encoder {encoder.name}: comes without its quantiser, which starts at random")
    return model
