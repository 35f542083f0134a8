"""From waveforms to answers, fast: the way a trained model is used, without labels, corpus or Trainer."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import Wav2Vec2CTCTokenizer, Wav2Vec2Processor

from modeling_ser_mtl import SerMtlModel, SerMtlOutput
from ser_mtl.corpora.audio import SAMPLING_RATE
from ser_mtl.corpora.batching import waveforms


def infer(
    model: SerMtlModel,
    processor: Wav2Vec2Processor,
    utterances: Sequence[np.ndarray],
    batch_seconds: float | None = None,
) -> list[dict]:
    """What a model hears in each utterance.

    Utterances of like length are answered together, which changes no answer.

    Args:
        model: on its device, in evaluation mode.
        processor: the model's own.
        utterances: samples at 16 kHz, (samples,) each, int16 or floats from -1 to 1; in any order, of any length.
        batch_seconds: audio in a batch, padding included; 32 on a CPU and 64 elsewhere, where not given. A longer
            utterance is a batch of its own.

    Returns:
        For each utterance, in the order they came: `emotion`, and `gender` and `style` where the model has them, as
        {"label", "probability", "probabilities": {label: p}}; `transcript`, where it transcribes. Emotion's are
        calibrated where the model has a temperature.
    """
    on_cpu = model.device.type == "cpu"
    batch_seconds = batch_seconds or (32 if on_cpu else 64)
    groups = list(length_groups([len(samples) for samples in utterances], int(batch_seconds * SAMPLING_RATE)))

    def answers_of(rows: list[int]) -> list[dict]:
        with torch.inference_mode():
            batch = waveforms([utterances[row] for row in rows], processor.feature_extractor)
            values, mask = batch["input_values"], batch["attention_mask"]
            output = model(values.to(model.device, model.dtype), mask.to(model.device))
            return _answers(model, processor, output, len(rows))

    answers: list[dict] = [{}] * len(utterances)
    with _cores_for(len(groups) if on_cpu else 1) as workers:
        for rows, found in zip(groups, workers.map(answers_of, groups), strict=True):
            for row, answer in zip(rows, found, strict=True):
                answers[row] = answer
    return answers


@contextmanager
def _cores_for(batches: int) -> Iterator[ThreadPoolExecutor]:
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
    """Positions of `lengths` in groups of like length, each of at most `budget` when padded; the longest first."""
    group: list[int] = []
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        if group and (len(group) + 1) * lengths[group[0]] > budget:
            yield group
            group = []
        group.append(row)
    if group:
        yield group


def _answers(model: SerMtlModel, processor: Wav2Vec2Processor, output: SerMtlOutput, utterances: int) -> list[dict]:
    answers: list[dict] = [{} for _ in range(utterances)]
    logits = dict(output.task_logits)
    if output.logits is not None:  # the temperature that was fitted on dev, where there is one
        logits["emotion"] = output.logits / model.config.temperature
    for task, scores in logits.items():
        if scores is not None:
            for answer, p in zip(answers, scores.float().softmax(dim=-1).tolist(), strict=True):
                answer[task] = _classified(model.config.labels[task], p)
    if output.asr_logits is not None:
        for answer, transcript in zip(answers, _transcripts(processor, output), strict=True):
            answer["transcript"] = transcript
    return answers


def _classified(labels: list[str], p: list[float]) -> dict:
    best = max(range(len(p)), key=p.__getitem__)
    return {"label": labels[best], "probability": p[best], "probabilities": dict(zip(labels, p, strict=True))}


def _transcripts(processor: Wav2Vec2Processor, output: SerMtlOutput) -> list[str]:
    """What greedy CTC hears, as text."""
    blank = processor.tokenizer.pad_token_id
    return as_text(heard_characters(output.asr_logits, output.frame_lengths, blank).tolist(), processor.tokenizer)


def as_text(heard: list[list[int]], tokenizer: Wav2Vec2CTCTokenizer) -> list[str]:
    """What `heard_characters` gives -> transcripts, as the tokenizer decodes them, which takes fifty times as long."""
    alphabet = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    words = ["".join(alphabet[character] for character in row if character >= 0) for row in heard]
    return [text.replace(tokenizer.word_delimiter_token, " ").strip() for text in words]


def heard_characters(logits: Tensor, frame_lengths: Tensor, blank: int) -> Tensor:
    """Greedy CTC: the most likely character of each real frame, without repetitions and blanks.

    (batch, frames, vocabulary), (batch,) -> (batch, characters) padded with -100: what is kept of an utterance until
    the end of an evaluation is its transcript, not its frames.
    """
    best = logits.argmax(dim=-1)
    real = torch.arange(best.shape[1], device=best.device) < frame_lengths.unsqueeze(1)
    kept = real & (best != blank) & (best != F.pad(best, (1, -1), value=blank))
    in_front = (~kept).byte().argsort(dim=1, stable=True)
    longest = max(1, int(kept.sum(dim=1).max()))
    return best.masked_fill(~kept, -100).gather(1, in_front)[:, :longest].int()
