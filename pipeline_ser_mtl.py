"""From recordings to answers: `pipeline("speech-emotion")`, whose code `ser_mtl.load` runs too.

This file travels to the Hub with `recordings_ser_mtl.py`; the two need nothing else of this project.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import chain, islice
from pathlib import Path
from threading import Lock
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import Pipeline, PreTrainedModel, Wav2Vec2CTCTokenizer, Wav2Vec2Processor
from transformers.utils import ModelOutput, logging

try:  # as in modeling_ser_mtl.py
    from .recordings_ser_mtl import SAMPLING_RATE, Recording, samples_of, waveforms, windows
except ImportError:
    try:
        from recordings_ser_mtl import SAMPLING_RATE, Recording, samples_of, waveforms, windows
    except ImportError:
        raise

AT_ONCE = 30 * 60 * SAMPLING_RATE
"""Samples in memory at once, half an hour of them: enough to find batches of similar length."""

NO_TRANSCRIPT = (
    "answers have no transcript: training or a merge changed the layers under its CTC head; take transcripts from the "
    "stage-1 model, or from the adapters before they were merged"
)

FrontEnd = Callable[[PreTrainedModel, Tensor, Tensor], tuple[Tensor, Tensor]]
"""Model, waveforms and mask, (batch, samples) each -> features and real frames, as `SerMtlModel.extract_features`."""


class SpeechEmotionPipeline(Pipeline):
    """The pipeline of the task "speech-emotion": emotion, the other tasks of the model, and the transcript.

    It takes the recordings and options of a `Recognizer`, and gives the same answers.
    """

    _load_processor = _load_image_processor = _load_video_processor = False
    _load_feature_extractor = _load_tokenizer = True

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.recognizer = Recognizer(self.model, Wav2Vec2Processor(self.feature_extractor, self.tokenizer))
        if self.model.ctc_head is not None and transcribing(self.model) is None:
            logging.get_logger(__name__).warning(NO_TRANSCRIPT)

    def __call__(self, inputs: Any, batch_size: int | None = None, num_workers: int | None = None, **options) -> Any:
        """The answer to a recording, a list for a list, an iterator for a generator or data set.

        Args:
            inputs: a recording, or many.
            batch_size: without effect, as `num_workers`: recordings are batched by their length.
            num_workers: likewise.
            **options: `transcript` and `raw`, as for a `Recognizer`.

        Raises:
            ValueError: a recording that cannot be read.
        """
        options = self._forward_params | self._sanitize_parameters(**options)[1]
        single = isinstance(inputs, str | Path | tuple | dict) or hasattr(inputs, "read")
        if single or isinstance(inputs, list) or not isinstance(inputs, Iterable):
            return self.recognizer(inputs, **options)
        return raising(self.recognizer.each(inputs, **options))

    def _sanitize_parameters(self, transcript=None, raw=None, local_files_only=None) -> tuple[dict, dict, dict]:
        options = {"transcript": transcript, "raw": raw}
        return {}, {name: value for name, value in options.items() if value is not None}, {}

    def preprocess(self, recording: Recording) -> Recording:
        """The recording: `_forward` reads it."""
        return recording

    def _forward(self, recording: Recording, **options) -> dict:
        return self.recognizer(recording, **options)

    def postprocess(self, answer: dict) -> dict:
        """The answer."""
        return answer


class Recognizer:
    """Answers recordings.

    Args:
        model: a `SerMtlModel` on its device, in evaluation mode.
        processor: the model's own.
        transcript: whether answers hold a transcript, where the model transcribes.
    """

    def __init__(self, model: PreTrainedModel, processor: Wav2Vec2Processor, transcript: bool = True):
        self.model, self.processor, self.transcript = model, processor, transcript
        self._one_at_a_time = Lock()  # `infer` switches the adapters of the model off and on

    @property
    def labels(self) -> dict[str, list[str]]:
        """The classes of each task with a head; of one that gives a value, none."""
        config = self.model.config
        return {task: config.labels[task] for task in config.classification_tasks} | {t: [] for t in config.value_tasks}

    def __call__(
        self, recording: Recording | list[Recording], *, transcript: bool | None = None, raw: bool = False
    ) -> dict | list[dict]:
        """The answer to a recording, or a list of answers to a list of recordings.

        Args:
            recording: see `recordings_ser_mtl.samples_of`. One of more than two minutes is answered in windows.
            transcript: whether answers hold a transcript; by default as at loading.
            raw: leave emotion's probabilities as the model was trained, without the temperature.

        Returns:
            `duration` in seconds; for each classification task {"label", "probability", "probabilities": {label: p}},
            emotion's calibrated; for each value {"value"}, on the scale of its annotations; and `transcript`, if the
            model transcribes.

        Raises:
            ValueError: a recording that cannot be read.
        """
        recordings = recording if isinstance(recording, list) else [recording]
        answers = list(raising(self.each(recordings, transcript=transcript, raw=raw)))
        return answers if isinstance(recording, list) else answers[0]

    def each(
        self, recordings: Iterable[Recording], *, transcript: bool | None = None, raw: bool = False
    ) -> Iterator[dict | ValueError]:
        """Answer many recordings, half an hour of audio at a time; `transcript` and `raw` as for a call.

        Yields:
            For each recording, in order, its answer, or the error if it cannot be read or answered.
        """
        transcript = self.transcript if transcript is None else transcript
        for chunk in chunks(self._read(recordings)):
            utterances = [samples for samples in chunk if not isinstance(samples, ValueError)]
            with self._one_at_a_time:
                answers = iter(self._infer(utterances, transcript, raw))
            for samples in chunk:
                if isinstance(samples, ValueError):
                    yield samples
                elif not _is_finite(answer := next(answers)):
                    yield ValueError(f"the model's answer is not finite in {self.model.dtype}; use dtype float32")
                else:
                    yield {"duration": round(len(samples) / SAMPLING_RATE, 3), **answer}

    def _read(self, recordings: Iterable[Recording]) -> Iterator[np.ndarray | ValueError]:
        for number, recording in enumerate(recordings, start=1):
            try:
                yield self._samples_of(recording, f"recording {number}")
            except ValueError as error:
                yield error

    def _samples_of(self, recording: Recording, name: str) -> np.ndarray:
        return samples_of(recording, name)

    def _infer(self, utterances: list[np.ndarray], transcript: bool, raw: bool) -> list[dict]:
        return infer(self.model, self.processor, utterances, transcript=transcript, raw=raw)


def raising(answers: Iterable[dict | ValueError]) -> Iterator[dict]:
    """Answers, until one is an error, which is raised."""
    for answer in answers:
        if isinstance(answer, ValueError):
            raise answer
        yield answer


def chunks(recordings: Iterable[np.ndarray | ValueError]) -> Iterator[list]:
    """Samples, as many recordings at a time as fit into `AT_ONCE`; errors between them stay where they are."""
    chunk: list[np.ndarray | ValueError] = []
    total = 0
    for samples in recordings:
        chunk.append(samples)
        total += 0 if isinstance(samples, ValueError) else len(samples)
        if total >= AT_ONCE:
            yield chunk
            chunk, total = [], 0
    yield chunk


# --------------------------------------------------------------------------------------------- from samples to answers


def stock_front_end(model: PreTrainedModel, values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """The model's own."""
    return model.extract_features(values, mask)


def infer(
    model: PreTrainedModel,
    processor: Wav2Vec2Processor,
    utterances: Sequence[np.ndarray],
    batch_seconds: float | None = None,
    transcript: bool = True,
    raw: bool = False,
    front_end: FrontEnd = stock_front_end,
) -> list[dict]:
    """Answer utterances in batches of similar length, which changes no answer, and long recordings in windows.

    Probabilities and values of a long recording are the mean over its windows, weighted by their lengths; transcripts
    are joined. A model whose adapters make noise of transcripts runs its Transformer twice, the second time without
    them.

    Args:
        model: on its device, in evaluation mode. Its adapters are off for a while: one call at a time.
        processor: the model's own.
        utterances: mono samples at 16 kHz, (samples,) each, int16 or floats from -1 to 1, in any order.
        batch_seconds: audio in a batch, padding included; by default 32 on a CPU and 64 elsewhere. A longer utterance
            is a batch of its own.
        transcript: as for `Recognizer`.
        raw: likewise.
        front_end: gives the features.

    Returns:
        For each utterance, in their order, the tasks and the transcript as in `Recognizer.__call__`.
    """
    seconds = batch_seconds or (32 if model.device.type == "cpu" else 64)
    source = transcribing(model) if transcript else None
    answer_batch = partial(_answer_batch, model, processor, source, raw, front_end)
    parts = [windows(samples, model.longest_input) for samples in utterances]
    answers = iter(
        [
            one
            for chunk in chunks(chain.from_iterable(parts))
            for one in _in_batches(model, processor, chunk, int(seconds * SAMPLING_RATE), answer_batch, source)
        ]
    )
    return [_joined(list(islice(answers, len(part))), [len(window) for window in part]) for part in parts]


def _in_batches(
    model: PreTrainedModel,
    processor: Wav2Vec2Processor,
    utterances: list[np.ndarray],
    budget: int,
    answer_batch: Callable,
    source: str | None,
) -> list[dict]:
    groups = list(length_groups([len(samples) for samples in utterances], budget))
    with _threads(len(groups) if model.device.type == "cpu" else 1) as spread:
        batches = [[utterances[row] for row in rows] for rows in groups]
        passes = list(spread(answer_batch, batches))
        answers = [answer for batch, _ in passes for answer in batch]
        if source == "frozen":
            with adapters_off(model):
                texts = list(spread(partial(_transcribe_batch, model, processor), [front for _, front in passes]))
            for answer, text in zip(answers, chain.from_iterable(texts), strict=True):
                answer["transcript"] = text
    order = np.argsort([row for rows in groups for row in rows])
    return [answers[position] for position in order]


@torch.inference_mode()
def _answer_batch(
    model: PreTrainedModel,
    processor: Wav2Vec2Processor,
    source: str | None,
    raw: bool,
    front_end: FrontEnd,
    utterances: list[np.ndarray],
) -> tuple[list[dict], tuple[Tensor, Tensor] | None]:
    """The answers to a batch; and the front end's features, for the pass of the frozen model if that transcribes."""
    batch = waveforms(utterances, processor.feature_extractor)
    dtype = torch.float32 if model.family.log_mel else model.dtype  # bfloat16 would hide quiet parts of a spectrum
    values, mask = batch["input_values"].to(model.device, dtype), batch["attention_mask"].to(model.device)
    features, lengths = front_end(model, values, mask)
    output = model(features=features, frame_lengths=lengths)
    answers = _answers(model, output, raw)
    if source == "adapted":
        for answer, text in zip(answers, _transcripts(processor, output.asr_logits, lengths), strict=True):
            answer["transcript"] = text
    return answers, (features, lengths) if source == "frozen" else None


@torch.inference_mode()
def _transcribe_batch(
    model: PreTrainedModel, processor: Wav2Vec2Processor, features: tuple[Tensor, Tensor]
) -> list[str]:
    frames, _, _ = model.encode(*features)
    return _transcripts(processor, model.ctc_head(frames), features[1])


@contextmanager
def _threads(batches: int) -> Iterator[Callable]:
    """A `map` over batches in threads: a core gains more from a batch of its own than from a share of every one."""
    cores = torch.get_num_threads()
    threads = max(1, min(cores, batches))
    if threads == 1:
        yield map
        return
    torch.set_num_threads(cores // threads)  # of each of the threads to come
    try:
        with ThreadPoolExecutor(threads) as workers:
            yield workers.map
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


def _answers(model: PreTrainedModel, output: ModelOutput, raw: bool) -> list[dict]:
    answers: list[dict] = [{} for _ in output.frame_lengths]
    calibrated = {} if raw or output.logits is None else {"emotion": output.logits}
    for task, logits in {**output.task_logits, **calibrated}.items():
        for answer, p in zip(answers, logits.float().softmax(dim=-1).tolist(), strict=True):
            answer[task] = _classified(model.config.labels[task], p)
    for task, values in (output.task_values or {}).items():
        for answer, value in zip(answers, values.tolist(), strict=True):
            answer[task] = {"value": value}
    return answers


def _joined(answers: list[dict], lengths: list[int]) -> dict:
    """The answer to a recording from those to its windows, of so many samples."""
    if len(answers) == 1:
        return answers[0]
    shares = np.array(lengths) / sum(lengths)
    whole: dict = {}
    for task, part in answers[0].items():
        if isinstance(part, dict) and "value" in part:
            whole[task] = {"value": float(shares @ np.array([answer[task]["value"] for answer in answers]))}
        elif isinstance(part, dict):
            p = shares @ np.array([list(answer[task]["probabilities"].values()) for answer in answers])
            whole[task] = _classified(list(part["probabilities"]), p.tolist())
        else:
            whole[task] = " ".join(text for answer in answers if (text := answer[task]))
    return whole


def _is_finite(answer: dict) -> bool:
    """Whether every probability and value of an answer is a number."""
    parts = [part for part in answer.values() if isinstance(part, dict)]
    return all(math.isfinite(part["value"] if "value" in part else part["probability"]) for part in parts)


def _classified(labels: list[str], p: list[float]) -> dict:
    best = max(range(len(p)), key=p.__getitem__)
    return {"label": labels[best], "probability": p[best], "probabilities": dict(zip(labels, p, strict=True))}


# --------------------------------------------------------------------------------------------------------- transcripts


def transcribing(model: PreTrainedModel) -> Literal["adapted", "frozen"] | None:
    """Which model the transcripts come from: as it is, with its adapters off, or None if neither can transcribe.

    A CTC head transcribes with the layers that it was trained on: those of now if speech recognition is among the
    tasks, else those under the adapters, unless the head was saved with the adapters and so belongs to earlier ones.
    """
    if model.ctc_head is None:
        return None
    if "asr" in model.config.tasks:
        return "adapted"
    return "frozen" if (adapters := _adapters(model)) and model.ctc_head not in adapters else None


@contextmanager
def adapters_off(model: PreTrainedModel) -> Iterator[None]:
    """Run the model without LoRA and without bottlenecks inside the block. Not for several threads at once."""
    adapters = _adapters(model)
    try:
        for module in adapters:
            module._disable_adapters = True  # PEFT's own switches change what is trained, and leave bottlenecks off
        yield
    finally:
        for module in adapters:
            module._disable_adapters = False


def _adapters(model: PreTrainedModel) -> list:
    try:
        from peft.tuners.tuners_utils import BaseTunerLayer
        from peft.utils import ModulesToSaveWrapper
    except ImportError:
        return []  # without it, no adapters were loaded
    return [module for module in model.modules() if isinstance(module, BaseTunerLayer | ModulesToSaveWrapper)]


def _transcripts(processor: Wav2Vec2Processor, logits: Tensor, frame_lengths: Tensor) -> list[str]:
    characters = heard_characters(logits, frame_lengths, processor.tokenizer.pad_token_id)
    return transcripts_of(characters.tolist(), processor.tokenizer)


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
