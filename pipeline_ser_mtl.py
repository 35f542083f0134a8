"""From recordings to answers: `pipeline("speech-emotion")`, whose code `ser_mtl.load` runs too.

This file travels to the Hub with `recordings_ser_mtl.py` and `segments_ser_mtl.py`; the three need nothing else of this
project.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import chain
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
    from .recordings_ser_mtl import SAMPLING_RATE, Recording, blocks_of, waveforms
    from .segments_ser_mtl import Segment, segments
except ImportError:
    try:
        from recordings_ser_mtl import SAMPLING_RATE, Recording, blocks_of, waveforms
        from segments_ser_mtl import Segment, segments
    except ImportError:
        raise

AT_ONCE = 30 * 60 * SAMPLING_RATE
"""Samples of speech in memory at once, half an hour of them: enough to find batches of similar length."""
_FIRST = 2 * 60 * SAMPLING_RATE
"""As many before the first answers come; each time twice as many follow, until `AT_ONCE`."""

UTTERANCE = 120 * SAMPLING_RATE
"""Samples of the longest utterance of a corpus that has one answer. Attention takes memory with its square."""

UNSURE = "unsure"
"""The label where no class has the probability that is asked for."""

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
            **options: as for a `Recognizer`.

        Raises:
            ValueError: a recording that cannot be read.
        """
        options = self._forward_params | self._sanitize_parameters(**options)[1]
        single = isinstance(inputs, str | Path | tuple | dict) or hasattr(inputs, "read")
        if single or isinstance(inputs, list) or not isinstance(inputs, Iterable):
            return self.recognizer(inputs, **options)
        return raising(self.recognizer.each(inputs, **options))

    def _sanitize_parameters(
        self, transcript=None, raw=None, abstain=None, embeddings=None, local_files_only=None
    ) -> tuple[dict, dict, dict]:
        options = {"transcript": transcript, "raw": raw, "abstain": abstain, "embeddings": embeddings}
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

    def __call__(self, recording: Recording | list[Recording], **options) -> dict | list[dict]:
        """The answer to a recording, or a list of answers to a list of recordings.

        Args:
            recording: see `recordings_ser_mtl.blocks_of`.
            **options: see `stream`.

        Returns:
            `duration` in seconds; for each classification task {"label", "probability", "probabilities": {label: p}},
            emotion's calibrated; for each value {"value"}, on the scale of its annotations; `transcript`, if the model
            transcribes; and `segments`, each with `start` and `end` in seconds, the same tasks, and its transcript. Of
            the whole recording, probabilities and values are the mean over the segments, weighted by their lengths, and
            the transcripts are joined. One without speech has no tasks: {"duration", "speech": False, "segments": []}.

        Raises:
            ValueError: a recording that cannot be read.
        """
        recordings = recording if isinstance(recording, list) else [recording]
        answers = list(raising(self.each(recordings, **options)))
        return answers if isinstance(recording, list) else answers[0]

    def each(self, recordings: Iterable[Recording], **options) -> Iterator[dict | ValueError]:
        """Answer many recordings; `options` as for `stream`.

        Yields:
            For each recording, in order, its answer, or the error if it cannot be read or answered.
        """
        for _, part in self.stream(recordings, **options):
            if isinstance(part, ValueError) or "segments" in part:
                yield part

    def stream(
        self,
        recordings: Iterable[Recording],
        *,
        transcript: bool | None = None,
        raw: bool = False,
        abstain: float = 0.0,
        embeddings: bool = False,
        whole: bool = False,
    ) -> Iterator[tuple[int, dict | ValueError]]:
        """Answer many recordings as they are read. No more than half an hour of speech is in memory.

        Args:
            recordings: in any forms, see `recordings_ser_mtl.blocks_of`.
            transcript: whether answers hold a transcript; by default as at loading.
            raw: leave emotion's probabilities as the model was trained, without the temperature.
            abstain: the label is "unsure" where no class has this probability.
            embeddings: whether segments hold `embeddings`, by task: (width,) float32 each.
            whole: each recording up to two minutes is one utterance, as of a corpus, even one of silence.

        Yields:
            The number of a recording, from 0, and a segment of it; after the last one its answer, which holds the
            segments, or the error if it cannot be read or answered.
        """
        transcript = self.transcript if transcript is None else transcript
        parts: list[dict] = []
        fault = None
        for chunk in chunks(self._heard(recordings, whole)):
            speech = [part.samples for _, part in chunk if isinstance(part, Segment)]
            with self._one_at_a_time:
                answers = iter(self._infer(speech, transcript=transcript, raw=raw, embeddings=embeddings))
            for number, part in chunk:
                if isinstance(part, Segment):
                    start, end = part.start, part.start + len(part.samples)
                    one = {"start": _seconds(start), "end": _seconds(end), **next(answers)}
                    if not _is_finite(one):
                        fault = ValueError(f"the model's answer is not finite in {self.model.dtype}; use dtype float32")
                    parts.append(_sure(one, abstain))
                    yield number, parts[-1]
                    continue
                fault = part if isinstance(part, ValueError) else fault
                yield number, fault or _sure(_joined(_seconds(part), parts), abstain)
                parts, fault = [], None

    def _heard(
        self, recordings: Iterable[Recording], whole: bool
    ) -> Iterator[tuple[int, "Segment | int | ValueError"]]:
        """The number of each recording, with its segments, and then with its length in samples or an error."""
        for number, recording in enumerate(recordings):
            length = 0

            def counted(blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
                nonlocal length
                for block in blocks:
                    length += len(block)
                    yield block

            blocks = self._blocks_of(recording, f"recording {number + 1}")
            try:
                heard = self._utterance if whole else partial(segments, longest=self.model.longest_input)
                for segment in heard(counted(blocks)):
                    yield number, segment
                yield number, length
            except ValueError as error:
                yield number, error

    def _utterance(self, blocks: Iterable[np.ndarray]) -> Iterator[Segment]:
        samples, longest = np.concatenate(list(blocks)), self.model.longest_input
        if len(samples) <= min(UTTERANCE, longest or UTTERANCE):
            yield Segment(0, samples)
        else:
            yield from segments([samples], longest=longest)

    def _blocks_of(self, recording: Recording, name: str) -> Iterator[np.ndarray]:
        return blocks_of(recording, name)

    def _infer(self, utterances: list[np.ndarray], **options) -> list[dict]:
        return infer(self.model, self.processor, utterances, **options)


def raising(answers: Iterable[dict | ValueError]) -> Iterator[dict]:
    """Answers, until one is an error, which is raised."""
    for answer in answers:
        if isinstance(answer, ValueError):
            raise answer
        yield answer


def chunks(parts: Iterable[tuple[int, Segment | int | ValueError]]) -> Iterator[list]:
    """As many parts of recordings at a time as fit into `AT_ONCE`, and fewer at first."""
    chunk: list = []
    total, most = 0, min(_FIRST, AT_ONCE)
    for number, part in parts:
        chunk.append((number, part))
        total += len(part.samples) if isinstance(part, Segment) else 0
        if total >= most:
            yield chunk
            chunk, total, most = [], 0, min(2 * most, AT_ONCE)
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
    embeddings: bool = False,
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
        front_end: gives the features.
        embeddings: whether answers hold `embeddings`, by task: (width,) float32 each.

    Returns:
        For each utterance, in their order, the tasks and the transcript as in `Recognizer.__call__`.
    """
    seconds = batch_seconds or (32 if model.device.type == "cpu" else 64)
    source = transcribing(model) if transcript else None
    answer_batch = partial(_answer_batch, model, processor, source, raw, front_end, embeddings)
    return _in_batches(model, processor, utterances, int(seconds * SAMPLING_RATE), answer_batch, source)


def _in_batches(
    model: PreTrainedModel,
    processor: Wav2Vec2Processor,
    utterances: Sequence[np.ndarray],
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
    embeddings: bool,
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
    if embeddings:
        rows = {task: x.float().cpu().numpy() for task, x in output.embeddings.items()}
        for row, answer in enumerate(answers):
            answer["embeddings"] = {task: x[row] for task, x in rows.items()}
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


def _joined(duration: float, parts: list[dict]) -> dict:
    """The answer to a recording of so many seconds from those to its segments."""
    if not parts:
        return {"duration": duration, "speech": False, "segments": []}
    names = [name for name in parts[0] if name not in ("start", "end", "embeddings")]
    if len(parts) == 1:
        return {"duration": duration, **{name: parts[0][name] for name in names}, "segments": parts}
    shares = np.array([part["end"] - part["start"] for part in parts])
    shares /= shares.sum()
    whole: dict = {"duration": duration}
    for name in names:
        each = [part[name] for part in parts]
        if "probabilities" in each[0]:
            p = shares @ np.array([list(one["probabilities"].values()) for one in each])
            whole[name] = _classified(list(each[0]["probabilities"]), p.tolist())
        elif "value" in each[0]:
            whole[name] = {"value": float(shares @ np.array([one["value"] for one in each]))}
        else:
            whole[name] = " ".join(text for text in each if text)
    return whole | {"segments": parts}


def _sure(answer: dict, abstain: float) -> dict:
    """The answer, with `UNSURE` in the place of labels that have less than this probability."""
    return {
        name: part | {"label": UNSURE} if "probabilities" in _dict(part) and part["probability"] < abstain else part
        for name, part in answer.items()
    }


def _is_finite(answer: dict) -> bool:
    """Whether every probability and value of an answer is a number."""
    parts = map(_dict, answer.values())
    return all(math.isfinite(part.get("probability", part.get("value", 0.0))) for part in parts)


def _dict(part: Any) -> dict:
    return part if isinstance(part, dict) else {}


def _seconds(samples: int) -> float:
    return round(samples / SAMPLING_RATE, 3)


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
