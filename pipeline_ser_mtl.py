"""From recordings to answers: `pipeline("speech-emotion")`, and the recognizer that `ser_mtl.load` builds on.

This file travels to the Hub with `answers_ser_mtl.py`, `recordings_ser_mtl.py` and `segments_ser_mtl.py`; the four need
nothing else of this project.
"""

import math
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from transformers import Pipeline, PreTrainedModel, Wav2Vec2Processor
from transformers.utils import logging

try:  # as in modeling_ser_mtl.py
    from .answers_ser_mtl import NO_TRANSCRIPT, classified, infer, transcript_source
    from .recordings_ser_mtl import SAMPLING_RATE, Recording, blocks_of
    from .segments_ser_mtl import Segment, segments
except ImportError:
    try:
        from answers_ser_mtl import NO_TRANSCRIPT, classified, infer, transcript_source
        from recordings_ser_mtl import SAMPLING_RATE, Recording, blocks_of
        from segments_ser_mtl import Segment, segments
    except ImportError:
        raise

AT_ONCE = 30 * 60 * SAMPLING_RATE
"""Samples of speech in memory at once: half an hour, enough to find batches of similar length."""
_FIRST = 2 * 60 * SAMPLING_RATE
"""Samples before the first answers. Their number doubles each time, up to `AT_ONCE`."""

UTTERANCE = 120 * SAMPLING_RATE
"""Samples of the longest utterance of a corpus that is answered whole. Attention takes memory with its square."""

UNSURE = "unsure"
"""The label where no class has the probability that `abstain` asks for."""


class SpeechEmotionPipeline(Pipeline):
    """The pipeline of the task "speech-emotion": emotion, the other tasks of the model, and the transcript.

    It takes the recordings and options of a `Recognizer`, and gives the same answers.
    """

    _load_processor = _load_image_processor = _load_video_processor = False
    _load_feature_extractor = _load_tokenizer = True

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.recognizer = Recognizer(self.model, Wav2Vec2Processor(self.feature_extractor, self.tokenizer))
        if self.model.ctc_head is not None and transcript_source(self.model) is None:
            logging.get_logger(__name__).warning(NO_TRANSCRIPT)

    def __call__(self, inputs: Any, batch_size: int | None = None, num_workers: int | None = None, **options) -> Any:
        """The answer to a recording, a list for a list, an iterator for a generator or dataset.

        Args:
            inputs: a recording, or many.
            batch_size: no effect: segments are batched by their length.
            num_workers: no effect.
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
        """Answer many recordings as they are read. At most half an hour of speech is in memory.

        Args:
            recordings: in any forms, see `recordings_ser_mtl.blocks_of`.
            transcript: whether answers hold a transcript; by default as at loading.
            raw: leave emotion's probabilities as the model was trained, without the temperature.
            abstain: the label is "unsure" where no class has this probability.
            embeddings: whether segments hold `embeddings`, by task: (width,) float32 each.
            whole: treat each recording of up to two minutes as one utterance of a corpus, even one of silence.

        Yields:
            The number of a recording, from 0, with each of its segments, and then with its answer, which holds the
            segments, or with the error if it cannot be read or answered.
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
                    parts.append(_abstaining(one, abstain))
                    yield number, parts[-1]
                    continue
                fault = part if isinstance(part, ValueError) else fault
                yield number, fault or _abstaining(_joined(_seconds(part), parts), abstain)
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
    """Pass answers on; raise the first error among them."""
    for answer in answers:
        if isinstance(answer, ValueError):
            raise answer
        yield answer


def chunks(parts: Iterable[tuple[int, Segment | int | ValueError]]) -> Iterator[list]:
    """Parts of recordings, as many at a time as fit into `AT_ONCE`, and fewer at first."""
    chunk: list = []
    total, most = 0, min(_FIRST, AT_ONCE)
    for number, part in parts:
        chunk.append((number, part))
        total += len(part.samples) if isinstance(part, Segment) else 0
        if total >= most:
            yield chunk
            chunk, total, most = [], 0, min(2 * most, AT_ONCE)
    yield chunk


def _joined(duration: float, parts: list[dict]) -> dict:
    """The answer to a recording, whose duration is in seconds, from the answers to its segments."""
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
            whole[name] = classified(list(each[0]["probabilities"]), p.tolist())
        elif "value" in each[0]:
            whole[name] = {"value": float(shares @ np.array([one["value"] for one in each]))}
        else:
            whole[name] = " ".join(text for text in each if text)
    return whole | {"segments": parts}


def _abstaining(answer: dict, abstain: float) -> dict:
    """The answer, with `UNSURE` in place of the labels whose probability is below `abstain`."""
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
