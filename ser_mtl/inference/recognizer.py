"""From recordings to answers: a trained model in use, without labels, corpus or Trainer."""

from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from transformers import AutoConfig, Wav2Vec2Processor
from transformers.utils import logging

import answers_ser_mtl
import pipeline_ser_mtl
from answers_ser_mtl import NO_TRANSCRIPT, transcript_source
from modeling_ser_mtl import SerMtlConfig, SerMtlModel
from recordings_ser_mtl import SAMPLING_RATE, Recording, blocks_of
from ser_mtl.corpora.level import Clipped
from ser_mtl.corpora.reading import audio_blocks
from ser_mtl.errors import UserError, hub_errors, notice
from ser_mtl.model.base import base_of
from ser_mtl.model.fast_front_end import extract_features, receptive_field
from ser_mtl.model.processor import load_processor
from ser_mtl.model.saved import check_saved

infer = partial(answers_ser_mtl.infer, front_end=extract_features)
"""As in `answers_ser_mtl`, with the front end that is faster on a CPU."""


def load(
    name: str | Path,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    transcript: bool = True,
    base: str | None = None,
) -> "Recognizer":
    """Load a trained model to answer recordings.

    Args:
        name: a run folder or a Hub id.
        device: by default the GPU if there is one.
        dtype: of the weights, such as `torch.bfloat16` or "bfloat16"; by default float32. "auto" is bfloat16 on a
            device that has instructions for it, else float32.
        transcript: whether answers hold a transcript, where the model transcribes.
        base: folder or Hub id of the base of adapters; by default the one that they name, or one that was moved with
            them.

    Raises:
        UserError: it cannot be loaded, or not to this device; or it is not a model of this project.
    """
    name = str(name)
    if not _exists(name) and name.count("/") != 1:
        raise UserError(f"model {name}: is neither a folder here nor a Hub id (namespace/name)")
    with hub_errors(f"model {name}"):
        check_saved(name, base=base)
        if AutoConfig.from_pretrained(name, trust_remote_code=False).model_type != SerMtlModel.config_class.model_type:
            raise UserError(f"model {name}: is not a model of this project")
        processor = load_processor(name, f"model {name}")
        model = SerMtlModel.from_pretrained(name, base=base_of(name, base))
    check_tokenizer(name, processor, model.config)
    if not all(bool(weight.isfinite().all()) for weight in model.parameters()):
        raise UserError(f"model {name}: holds weights that are not finite: its training diverged; train it again")
    if transcript and model.ctc_head is not None and transcript_source(model) is None:
        notice(f"model {name}: {NO_TRANSCRIPT}")
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    return Recognizer(_moved(model, device, dtype or torch.float32), processor, transcript)


def _moved(model: SerMtlModel, device: str | torch.device, dtype: str | torch.dtype) -> SerMtlModel:
    """The model for inference on a device."""
    try:
        dtype = _fast_dtype(torch.device(device)) if dtype == "auto" else dtype
        dtype = getattr(torch, dtype, dtype) if isinstance(dtype, str) else dtype
        torch.zeros(1, device=device).cpu()  # "meta" holds no numbers
        return model.eval().to(device=device, dtype=dtype)
    except (AssertionError, RuntimeError, TypeError) as error:
        reason = " ".join(str(error).split()).partition(". ")[0]  # the rest lists all devices that there could be
        raise UserError(f"device {device}, dtype {dtype}: {reason}") from error


def load_flagged(name: str | Path, **options) -> "Recognizer":
    """As `load`, for a program with the flag `--model`, which its errors name."""
    logging.disable_progress_bar()  # transformers' own bars are for steps of milliseconds
    try:
        return load(name, **options)
    except UserError as error:
        line = str(error)
        raise UserError(f"--{line}" if line.startswith(("model ", "model:")) else line) from error


def _exists(name: str) -> bool:
    try:
        return Path(name).exists()
    except OSError:  # too long, or a loop of links
        return False


def check_tokenizer(name: str, processor: Wav2Vec2Processor, config: SerMtlConfig) -> None:
    """Check that the tokenizer has a character for each output of the CTC head, and the processor the right rate.

    Raises:
        UserError: it has not.
    """
    tokenizer, characters = processor.tokenizer, config.vocab_size or 0
    known = len(tokenizer) >= characters and tokenizer.pad_token_id == config.pad_token_id
    if characters and not (known and isinstance(tokenizer.word_delimiter_token, str)):
        raise UserError(f"model {name}: vocab.json does not have the {config.vocab_size} characters of config.json")
    if processor.feature_extractor.sampling_rate != SAMPLING_RATE:
        raise UserError(f"model {name}: takes audio at {processor.feature_extractor.sampling_rate} Hz, not at 16,000")


def _fast_dtype(device: torch.device) -> torch.dtype:
    """Bfloat16 if the device has instructions for it and does not merely emulate it, else float32."""
    native = False
    if device.type == "cpu":
        native = any(torch.cpu.get_capabilities().get(name) for name in ("avx512_bf16", "amx_bf16"))
    elif device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.bfloat16 if native else torch.float32


class Recognizer(pipeline_ser_mtl.Recognizer):
    """A `pipeline_ser_mtl.Recognizer` that reads every format of audio, on the faster front end."""

    def stream(self, recordings: Iterable[Recording], **options) -> Iterator[tuple[int, dict | ValueError]]:
        """As in `pipeline_ser_mtl`; an error is a `UserError`."""
        for number, part in super().stream(recordings, **options):
            yield number, UserError(str(part)) if isinstance(part, ValueError) else part

    def _blocks_of(self, recording: Recording, name: str) -> Iterator[np.ndarray]:
        length, frame = 0, receptive_field(self.model)[0]
        for block in blocks_of(recording, name, audio_blocks, Clipped):
            length += len(block)
            yield block
        if length < frame:
            name = str(recording) if isinstance(recording, str | Path) else name
            notice(f"{name}: {length} samples at 16 kHz are less than one frame ({frame}): its answer says nothing")

    def _infer(self, utterances: list[np.ndarray], **options) -> list[dict]:
        return infer(self.model, self.processor, utterances, **options)
