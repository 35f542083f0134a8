"""From samples to answers: utterances through the model, in batches, and the transcripts of its CTC head.

This file travels to the Hub with `recordings_ser_mtl.py`; the two need nothing else of this project.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel, Wav2Vec2CTCTokenizer, Wav2Vec2Processor
from transformers.utils import ModelOutput

try:  # as in modeling_ser_mtl.py
    from .recordings_ser_mtl import SAMPLING_RATE, waveforms
except ImportError:
    try:
        from recordings_ser_mtl import SAMPLING_RATE, waveforms
    except ImportError:
        raise

NO_TRANSCRIPT = (
    "answers have no transcript: training or a merge changed the layers under its CTC head; take transcripts from the "
    "stage-1 model, or from the adapters before they were merged"
)

FrontEnd = Callable[[PreTrainedModel, Tensor, Tensor], tuple[Tensor, Tensor]]
"""Model, waveforms and mask, (batch, samples) each -> features and real frames, as `SerMtlModel.extract_features`."""


def stock_front_end(model: PreTrainedModel, values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """The front end of the model itself."""
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

    A model whose adapters spoil transcripts runs its Transformer twice, the second time without them.

    Args:
        model: on its device, in evaluation mode. Its adapters are off for a while, so only one call may run at a time.
        processor: the model's own.
        utterances: mono samples at 16 kHz, (samples,) each, int16 or floats from -1 to 1, in any order.
        batch_seconds: seconds of audio in a batch, padding included; by default 32 on a CPU and 64 elsewhere. A longer
            utterance is a batch of its own.
        transcript: whether answers hold a transcript, where the model transcribes.
        raw: leave emotion's probabilities as the model was trained, without the temperature.
        front_end: computes the features.
        embeddings: whether answers hold `embeddings`, by task: (width,) float32 each.

    Returns:
        For each utterance, in the order given, the tasks and the transcript as in `Recognizer.__call__`.
    """
    seconds = batch_seconds or (32 if model.device.type == "cpu" else 64)
    source = transcript_source(model) if transcript else None
    inference = _Inference(model, processor, source, raw, front_end, embeddings)
    return inference.answers(utterances, int(seconds * SAMPLING_RATE))


@dataclass(frozen=True)
class _Inference:
    """A model and what its answers shall hold: as for `infer`, and the `transcript_source`."""

    model: PreTrainedModel
    processor: Wav2Vec2Processor
    source: Literal["adapted", "frozen"] | None
    raw: bool
    front_end: FrontEnd
    embeddings: bool

    def answers(self, utterances: Sequence[np.ndarray], budget: int) -> list[dict]:
        """The answers in the order of the utterances, from batches of at most `budget` samples when padded."""
        groups = list(length_groups([len(samples) for samples in utterances], budget))
        with _threads(len(groups) if self.model.device.type == "cpu" else 1) as spread:
            passes = list(spread(self.answer_batch, [[utterances[row] for row in rows] for rows in groups]))
            answers = [answer for batch, _ in passes for answer in batch]
            if self.source == "frozen":
                with adapters_off(self.model):
                    texts = list(spread(self.transcribe_batch, [features for _, features in passes]))
                for answer, text in zip(answers, chain.from_iterable(texts), strict=True):
                    answer["transcript"] = text
        order = np.argsort([row for rows in groups for row in rows])
        return [answers[position] for position in order]

    @torch.inference_mode()
    def answer_batch(self, utterances: list[np.ndarray]) -> tuple[list[dict], tuple[Tensor, Tensor] | None]:
        """The answers to a batch; and its features and their lengths, if the frozen model is to transcribe them."""
        model, batch = self.model, waveforms(utterances, self.processor.feature_extractor)
        dtype = torch.float32 if model.family.log_mel else model.dtype  # bfloat16 would hide quiet parts of a spectrum
        values, mask = batch["input_values"].to(model.device, dtype), batch["attention_mask"].to(model.device)
        features, lengths = self.front_end(model, values, mask)
        output = model(features=features, frame_lengths=lengths)
        answers = _answers(model, output, self.raw)
        if self.source == "adapted":
            for answer, text in zip(answers, _transcripts(self.processor, output.asr_logits, lengths), strict=True):
                answer["transcript"] = text
        if self.embeddings:
            rows = {task: x.float().cpu().numpy() for task, x in output.embeddings.items()}
            for row, answer in enumerate(answers):
                answer["embeddings"] = {task: x[row] for task, x in rows.items()}
        return answers, (features, lengths) if self.source == "frozen" else None

    @torch.inference_mode()
    def transcribe_batch(self, features: tuple[Tensor, Tensor]) -> list[str]:
        """The transcripts of a batch by the model as it is, from its features and their lengths."""
        frames, _, _ = self.model.encode(*features)
        return _transcripts(self.processor, self.model.ctc_head(frames), features[1])


@contextmanager
def _threads(batches: int) -> Iterator[Callable]:
    """A `map` over batches in threads: cores do more with a batch each than with one batch after the other together."""
    cores = torch.get_num_threads()
    threads = max(1, min(cores, batches))
    if threads == 1:
        yield map
        return
    torch.set_num_threads(cores // threads)  # of each thread started from here on
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
            answer[task] = classified(model.config.labels[task], p)
    for task, values in (output.task_values or {}).items():
        for answer, value in zip(answers, values.tolist(), strict=True):
            answer[task] = {"value": value}
    return answers


def classified(labels: list[str], p: list[float]) -> dict:
    """A task's answer: the most likely label, its probability, and those of all labels."""
    best = max(range(len(p)), key=p.__getitem__)
    return {"label": labels[best], "probability": p[best], "probabilities": dict(zip(labels, p, strict=True))}


def transcript_source(model: PreTrainedModel) -> Literal["adapted", "frozen"] | None:
    """Which model transcripts come from: "adapted", as it is; "frozen", with adapters off; None, neither transcribes.

    A CTC head needs the layers that it was trained on: the present ones if speech recognition is among the tasks, else
    those under the adapters, unless the head was saved with the adapters and so belongs to earlier ones.
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
            module._disable_adapters = True  # PEFT's own switches change requires_grad, and leave bottlenecks off
        yield
    finally:
        for module in adapters:
            module._disable_adapters = False


def _adapters(model: PreTrainedModel) -> list:
    try:
        from peft.tuners.tuners_utils import BaseTunerLayer
        from peft.utils import ModulesToSaveWrapper
    except ImportError:
        return []  # without PEFT, no adapters were loaded
    return [module for module in model.modules() if isinstance(module, BaseTunerLayer | ModulesToSaveWrapper)]


def _transcripts(processor: Wav2Vec2Processor, logits: Tensor, frame_lengths: Tensor) -> list[str]:
    characters = greedy_ctc(logits, frame_lengths, processor.tokenizer.pad_token_id)
    return transcripts_of(characters.tolist(), processor.tokenizer)


def transcripts_of(characters: list[list[int]], tokenizer: Wav2Vec2CTCTokenizer) -> list[str]:
    """Rows of `greedy_ctc` -> transcripts, the same as the tokenizer's, which takes fifty times as long.

    Special tokens are left out, such as [UNK], a character that was not in the vocabulary.
    """
    alphabet = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    for special in special_characters(tokenizer):
        alphabet[special] = ""
    words = ["".join(alphabet[character] for character in row if character >= 0) for row in characters]
    return [text.replace(tokenizer.word_delimiter_token, " ").strip() for text in words]


def special_characters(tokenizer: Wav2Vec2CTCTokenizer) -> list[int]:
    """The outputs of the CTC head that are not text: the blank, and the unknown character."""
    special = {*tokenizer.all_special_tokens} - {tokenizer.word_delimiter_token}
    return [i for i, token in enumerate(tokenizer.convert_ids_to_tokens(range(len(tokenizer)))) if token in special]


def greedy_ctc(logits: Tensor, frame_lengths: Tensor, blank: int) -> Tensor:
    """Greedy CTC: the most likely character of each real frame, without repetitions and blanks.

    (batch, frames, vocabulary), (batch,) -> (batch, characters) padded with -100, much less to keep than the frames.
    """
    best = logits.argmax(dim=-1)
    real = torch.arange(best.shape[1], device=best.device) < frame_lengths.unsqueeze(1)
    chosen = real & (best != blank) & (best != F.pad(best, (1, -1), value=blank))
    in_front = (~chosen).byte().argsort(dim=1, stable=True)
    longest = max(1, int(chosen.sum(dim=1).max()))
    return best.masked_fill(~chosen, -100).gather(1, in_front)[:, :longest].int()
