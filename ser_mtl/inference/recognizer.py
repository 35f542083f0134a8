"""From recordings to answers: how a trained model is used, without labels, corpus or Trainer."""

import math
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from threading import Lock

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AutoConfig, Wav2Vec2CTCTokenizer, Wav2Vec2Processor

from modeling_ser_mtl import SerMtlConfig, SerMtlModel, SerMtlOutput
from ser_mtl.corpora.audio import SAMPLING_RATE
from ser_mtl.corpora.batching import waveforms
from ser_mtl.errors import UserError, hub_errors, notice
from ser_mtl.inference.recordings import Recording, samples_of
from ser_mtl.model.adapters_off import NO_TRANSCRIPT, adapters_off, transcribing
from ser_mtl.model.base import base_of
from ser_mtl.model.fast_front_end import extract_features
from ser_mtl.model.saved import check_saved

AT_ONCE = 30 * 60 * SAMPLING_RATE
"""Samples in memory at once, half an hour of them: enough to find batches of similar length."""


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
        processor = Wav2Vec2Processor.from_pretrained(name, trust_remote_code=False)
        model = SerMtlModel.from_pretrained(name, base=base_of(name, base))
    check_tokenizer(name, processor, model.config)
    if not all(bool(weight.isfinite().all()) for weight in model.parameters()):
        raise UserError(f"model {name}: holds weights that are not finite: its training diverged; train it again")
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        dtype = _fast_dtype(torch.device(device)) if dtype == "auto" else dtype or torch.float32
        dtype = getattr(torch, dtype, dtype) if isinstance(dtype, str) else dtype
        model = model.eval().to(device=device, dtype=dtype)
    except (AssertionError, RuntimeError, TypeError) as error:
        raise UserError(f"device {device}, dtype {dtype}: {' '.join(str(error).split())}") from error
    if transcript and model.ctc_head is not None and transcribing(model) is None:
        notice(f"model {name}: {NO_TRANSCRIPT}")
    return Recognizer(model, processor, transcript)


def _exists(name: str) -> bool:
    try:
        return Path(name).exists()
    except OSError:  # too long, or a loop of links
        return False


def check_tokenizer(name: str, processor: Wav2Vec2Processor, config: SerMtlConfig) -> None:
    """Check that the tokenizer has a character for each output of the CTC head.

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
    """Bfloat16 where the device computes with it and does not merely emulate it."""
    native = False
    if device.type == "cpu":
        native = any(torch.cpu.get_capabilities().get(name) for name in ("avx512_bf16", "amx_bf16"))
    elif device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.bfloat16 if native else torch.float32


class Recognizer:
    """Answers recordings.

    Args:
        model: on its device, in evaluation mode.
        processor: the model's own.
        transcript: whether answers hold a transcript, where the model transcribes.
    """

    def __init__(self, model: SerMtlModel, processor: Wav2Vec2Processor, transcript: bool = True):
        self.model, self.processor, self.transcript = model, processor, transcript
        self._one_at_a_time = Lock()  # `infer` switches the adapters of the model off and on

    @property
    def labels(self) -> dict[str, list[str]]:
        """The classes of each classification task."""
        return {task: self.model.config.labels[task] for task in self.model.config.classification_tasks}

    def __call__(
        self, recording: Recording | list[Recording], *, transcript: bool | None = None, raw: bool = False
    ) -> dict | list[dict]:
        """The answer to a recording, or a list of answers to a list of recordings.

        Args:
            recording: a path, a binary file object, or `(samples, rate)`, see `inference.recordings.samples_of`.
            transcript: whether answers hold a transcript; by default as at loading.
            raw: leave emotion's probabilities as the model was trained, without the temperature.

        Returns:
            `duration` in seconds; for each classification task {"label", "probability", "probabilities": {label: p}},
            emotion's calibrated; and `transcript`, if the model transcribes.

        Raises:
            UserError: a recording that cannot be read or is too long.
        """
        answers = []
        recordings = recording if isinstance(recording, list) else [recording]
        for answer in self.each(recordings, transcript=transcript, raw=raw):
            if isinstance(answer, UserError):
                raise answer
            answers.append(answer)
        return answers if isinstance(recording, list) else answers[0]

    def each(
        self, recordings: Iterable[Recording], *, transcript: bool | None = None, raw: bool = False
    ) -> Iterator[dict | UserError]:
        """Answer many recordings, half an hour of audio at a time; `transcript` and `raw` as for a call.

        Yields:
            For each recording, in order, its answer, or the error if it cannot be read or answered.
        """
        transcript = self.transcript if transcript is None else transcript
        for chunk in _chunks(recordings):
            utterances = [samples for samples in chunk if not isinstance(samples, UserError)]
            with self._one_at_a_time:
                answers = iter(infer(self.model, self.processor, utterances, transcript=transcript, raw=raw))
            for samples in chunk:
                if isinstance(samples, UserError):
                    yield samples
                elif not _is_finite(answer := next(answers)):
                    yield UserError(f"the model's answer is not finite in {self.model.dtype}; use dtype float32")
                else:
                    yield {"duration": round(len(samples) / SAMPLING_RATE, 3), **answer}


def infer(
    model: SerMtlModel,
    processor: Wav2Vec2Processor,
    utterances: Sequence[np.ndarray],
    batch_seconds: float | None = None,
    transcript: bool = True,
    raw: bool = False,
) -> list[dict]:
    """Answer utterances in batches of similar length, which changes no answer.

    A model whose adapters make noise of transcripts runs its Transformer twice, the second time without them.

    Args:
        model: on its device, in evaluation mode. Its adapters are off for a while: one call at a time.
        processor: the model's own.
        utterances: mono samples at 16 kHz, (samples,) each, int16 or floats from -1 to 1, in any order.
        batch_seconds: audio in a batch, padding included; by default 32 on a CPU and 64 elsewhere. A longer utterance
            is a batch of its own.
        transcript: as for `Recognizer`.
        raw: likewise.

    Returns:
        For each utterance, in their order, the tasks and the transcript as in `Recognizer.__call__`.
    """
    on_cpu = model.device.type == "cpu"
    batch_seconds = batch_seconds or (32 if on_cpu else 64)
    groups = list(length_groups([len(samples) for samples in utterances], int(batch_seconds * SAMPLING_RATE)))
    source = transcribing(model) if transcript else None
    with _threads(len(groups) if on_cpu else 1) as threads:
        batches = [[utterances[row] for row in rows] for rows in groups]
        passes = list(threads.map(partial(_answer_batch, model, processor, source, raw), batches))
        answers = [answer for batch, _ in passes for answer in batch]
        if source == "frozen":
            with adapters_off(model):
                texts = threads.map(partial(_transcribe_batch, model, processor), [features for _, features in passes])
                for answer, text in zip(answers, [text for batch in texts for text in batch], strict=True):
                    answer["transcript"] = text
    order = np.argsort([row for rows in groups for row in rows])
    return [answers[position] for position in order]


@torch.inference_mode()
def _answer_batch(
    model: SerMtlModel, processor: Wav2Vec2Processor, source: str | None, raw: bool, utterances: list[np.ndarray]
) -> tuple[list[dict], tuple[Tensor, Tensor] | None]:
    """The answers to a batch; and the front end's features, for the pass of the frozen model if that transcribes."""
    batch = waveforms(utterances, processor.feature_extractor)
    values, mask = batch["input_values"].to(model.device, model.dtype), batch["attention_mask"].to(model.device)
    features, lengths = extract_features(model, values, mask)
    output = model(features=features, frame_lengths=lengths)
    answers = _answers(model, output, raw)
    if source == "adapted":
        for answer, text in zip(answers, _transcripts(processor, output.asr_logits, lengths), strict=True):
            answer["transcript"] = text
    return answers, (features, lengths) if source == "frozen" else None


@torch.inference_mode()
def _transcribe_batch(model: SerMtlModel, processor: Wav2Vec2Processor, features: tuple[Tensor, Tensor]) -> list[str]:
    frames, _, _ = model.encode(*features)
    return _transcripts(processor, model.ctc_head(frames), features[1])


def _chunks(recordings: Iterable[Recording]) -> Iterator[list[np.ndarray | UserError]]:
    """Read recordings, as many at a time as fit into `AT_ONCE`; one that cannot be read becomes its error."""
    chunk: list[np.ndarray | UserError] = []
    total = 0
    for number, recording in enumerate(recordings, start=1):
        try:
            samples = samples_of(recording, f"recording {number}")
            chunk.append(samples)
            total += len(samples)
        except UserError as error:
            chunk.append(error)
        if total >= AT_ONCE:
            yield chunk
            chunk, total = [], 0
    yield chunk


@contextmanager
def _threads(batches: int) -> Iterator[ThreadPoolExecutor]:
    """Threads that work on a batch each: a core gains more from a batch of its own than from a share of every one."""
    cores = torch.get_num_threads()
    threads = max(1, min(cores, batches))
    torch.set_num_threads(cores // threads)  # of each of the threads to come
    try:
        with ThreadPoolExecutor(threads) as workers:
            yield workers
    finally:
        torch.set_num_threads(cores)


def length_groups(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Positions of `lengths` in groups of similar length, each of at most `budget` when padded; the longest first."""
    group: list[int] = []
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        if group and (len(group) + 1) * lengths[group[0]] > budget:
            yield group
            group = []
        group.append(row)
    if group:
        yield group


def _answers(model: SerMtlModel, output: SerMtlOutput, raw: bool) -> list[dict]:
    answers: list[dict] = [{} for _ in output.frame_lengths]
    calibrated = {} if raw or output.logits is None else {"emotion": output.logits}
    for task, logits in (dict(output.task_logits) | calibrated).items():
        for answer, p in zip(answers, logits.float().softmax(dim=-1).tolist(), strict=True):
            answer[task] = _classified(model.config.labels[task], p)
    return answers


def _transcripts(processor: Wav2Vec2Processor, logits: Tensor, frame_lengths: Tensor) -> list[str]:
    characters = heard_characters(logits, frame_lengths, processor.tokenizer.pad_token_id)
    return transcripts_of(characters.tolist(), processor.tokenizer)


def _is_finite(answer: dict) -> bool:
    """Whether every probability of an answer is a number."""
    return all(math.isfinite(part["probability"]) for part in answer.values() if isinstance(part, dict))


def _classified(labels: list[str], p: list[float]) -> dict:
    best = max(range(len(p)), key=p.__getitem__)
    return {"label": labels[best], "probability": p[best], "probabilities": dict(zip(labels, p, strict=True))}


def transcripts_of(characters: list[list[int]], tokenizer: Wav2Vec2CTCTokenizer) -> list[str]:
    """Rows of `heard_characters` -> transcripts, as the tokenizer decodes them, which takes fifty times as long."""
    alphabet = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    words = ["".join(alphabet[character] for character in row if character >= 0) for row in characters]
    return [text.replace(tokenizer.word_delimiter_token, " ").strip() for text in words]


def heard_characters(logits: Tensor, frame_lengths: Tensor, blank: int) -> Tensor:
    """Greedy CTC: the most likely character of each real frame, without repetitions and blanks.

    (batch, frames, vocabulary), (batch,) -> (batch, characters) padded with -100: an evaluation then keeps the
    transcript of an utterance until its end, not the frames.
    """
    best = logits.argmax(dim=-1)
    real = torch.arange(best.shape[1], device=best.device) < frame_lengths.unsqueeze(1)
    chosen = real & (best != blank) & (best != F.pad(best, (1, -1), value=blank))
    in_front = (~chosen).byte().argsort(dim=1, stable=True)
    longest = max(1, int(chosen.sum(dim=1).max()))
    return best.masked_fill(~chosen, -100).gather(1, in_front)[:, :longest].int()
