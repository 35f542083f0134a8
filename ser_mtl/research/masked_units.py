"""Masked prediction of units, the third step of P-TAPT (Chen and Rudnicky 2023)."""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from datasets import Dataset, DatasetDict, Value
from torch import Tensor, nn
from transformers import set_seed

from modeling_ser_mtl import SerMtlModel
from ser_mtl.corpora.batching import Collator
from ser_mtl.errors import UserError
from ser_mtl.model.spec_augment import span_mask
from ser_mtl.research.pretraining import FEWEST_SPANS, Pretrainer, Pretraining
from ser_mtl.research.units import units_of
from ser_mtl.training.arguments import SerMtlArguments
from ser_mtl.training.data import model_inputs, without_text
from ser_mtl.training.heard import check_never_heard
from ser_mtl.training.method import Earlier
from ser_mtl.training.saving import save_model
from ser_mtl.training.stage1_start import stage1_start

SPAN, SHARE = 15, 0.06
"""Frames of a masked span, and the share of masked frames."""


class MaskedUnits(nn.Module):
    """An encoder that predicts the units of masked frames.

    Args:
        model: the encoder, under heads that are not trained.
        sizes: the number of units of each clustering.
    """

    def __init__(self, model: SerMtlModel, sizes: list[int]):
        super().__init__()
        dim = model.config.encoder_config.hidden_size
        self.model = model
        self.model.heads.requires_grad_(False)
        self.model.spec_augment = self._mask
        self.predictors = nn.ModuleList(
            nn.Sequential(nn.ReLU(), nn.Linear(dim, 256), nn.Tanh(), nn.Linear(256, size)) for size in sizes
        )

    def _mask(self, hidden: Tensor, frame_lengths: Tensor) -> Tensor:
        self._masked = span_mask(frame_lengths, hidden.shape[1], SHARE, SPAN, FEWEST_SPANS)
        filler = getattr(self.model.encoder, "masked_spec_embed", None)
        filler = hidden.new_zeros(()) if filler is None else filler.to(hidden.dtype)
        return torch.where(self._masked.unsqueeze(-1), filler, hidden)

    def forward(self, units: Tensor, **audio: Tensor) -> dict[str, Tensor]:
        """(batch, frames, clusterings) and `features` and `frame_lengths`, or waveforms -> the loss.

        It is the mean over masked frames of the cross-entropy, summed over the clusterings.
        """
        if "features" not in audio:
            audio["features"], audio["frame_lengths"] = self.model.extract_features(**audio)
        frames, _, _ = self.model.encode(audio["features"], audio["frame_lengths"])
        masked, targets = frames[self._masked], units[self._masked]
        total = sum(F.cross_entropy(predict(masked).float(), targets[:, i], reduction="sum")
                    for i, predict in enumerate(self.predictors))  # fmt: skip
        return {"loss": total / max(1, len(masked))}


class UnitsCollator:
    """Batches of audio with the units of every frame.

    Args:
        collator: makes the batches of audio.
        units: (frames, clusterings) of each row.
    """

    def __init__(self, collator: Collator, units: list[np.ndarray]):
        self.collator, self.units = collator, units

    def __call__(self, rows: list[dict]) -> dict[str, Tensor]:
        """Rows -> audio and units, padded with zeros: padding is never masked."""
        batch = self.collator(rows)
        audio = {name: batch[name] for name in ("input_values", "attention_mask", "features", "frame_lengths")
                 if name in batch}  # fmt: skip
        units = [torch.from_numpy(self.units[row["row"]].astype(np.int64)) for row in rows]
        return audio | {"units": nn.utils.rnn.pad_sequence(units, batch_first=True)}


def units_pretrainer(stage: Pretraining, args: SerMtlArguments, parts: DatasetDict) -> Pretrainer:
    """The Trainer of P-TAPT: the original encoder learns to predict the units of masked frames, on `parts["train"]`.

    Raises:
        UserError: a model cannot be loaded, or was trained on utterances that are held out, or frames do not match.
    """
    assert stage.frames is not None
    check_never_heard(Earlier("--frames", stage.frames), parts)
    utterances = unlabelled(parts["train"])
    units = units_of(stage.frames, utterances, stage.units, stage, args)
    set_seed(args.seed)
    start = stage1_start(stage, {"emotion": ["speech"]}, DatasetDict({"train": utterances}))
    if start.earlier is not None:
        check_never_heard(start.earlier, parts)
    corpus = model_inputs(utterances, start, stage, args)
    frames = start.model.frame_lengths(torch.tensor(corpus["length"][:])).tolist()
    if frames != [len(one) for one in units]:
        raise UserError(f"--frames {stage.frames}: its encoder has another frame rate than --encoder {stage.encoder}")
    model = MaskedUnits(start.model, [int(one.max()) + 1 for one in np.concatenate(units).T])
    collator = UnitsCollator(Collator(start.processor.feature_extractor), units)

    def save(folder: Path) -> None:
        save_model(start.model, start.processor, folder)

    return Pretrainer(model, args, corpus, without_text(corpus), collator, save)


def unlabelled(utterances: Dataset) -> Dataset:
    """Utterances without their emotions."""
    nothing = [None] * len(utterances)
    return utterances.remove_columns("emotion").add_column("emotion", nothing, feature=Value("string"))
