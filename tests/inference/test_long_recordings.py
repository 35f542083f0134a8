"""Answers over time: each segment's own, the whole as their mean by length; silence is no emotion; unsure is said."""

import io
import re
import sys
from contextlib import nullcontext
from itertools import islice
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
from helpers.tiny import SAMPLING_RATE, check_one_line, run_script, tone

import answers_ser_mtl
import pipeline_ser_mtl
import ser_mtl
from segments_ser_mtl import FRAME
from ser_mtl.inference import live


@pytest.fixture(scope="module")
def recognizer(finished2):
    return ser_mtl.load(finished2, device="cpu")


@pytest.fixture(scope="module")
def talk() -> np.ndarray:
    """Tones and noise of 2 to 6 seconds in a minute, with silence between them, int16."""
    random = np.random.default_rng(0)
    parts = []
    for seconds, pitch in ((3, 300), (6, 500), (2, 800), (4, 250), (5, 600), (5, 350), (3, 440)):
        sound = tone(pitch, seconds) + random.normal(0, 0.05, seconds * SAMPLING_RATE)
        parts += [sound, np.zeros(random.integers(2, 5) * SAMPLING_RATE)]
    return (np.concatenate(parts) * 20_000).astype(np.int16)


def flat(answer: dict) -> list[float]:
    return [p for task in ("emotion", "gender", "style") for p in answer[task]["probabilities"].values()]


def test_the_whole_is_the_mean_of_its_segments_by_length(recognizer, talk):
    answer = recognizer((talk, SAMPLING_RATE))
    assert len(answer["segments"]) == 7 and answer["duration"] == len(talk) / SAMPLING_RATE
    lengths = [segment["end"] - segment["start"] for segment in answer["segments"]]
    mean = np.average([flat(segment) for segment in answer["segments"]], axis=0, weights=lengths)
    assert flat(answer) == pytest.approx(list(mean), abs=1e-9)
    for task in ("emotion", "gender", "style"):
        p = answer[task]["probabilities"]
        assert answer[task]["label"] == max(p, key=p.get) and answer[task]["probability"] == max(p.values())
    words = [segment["transcript"] for segment in answer["segments"] if segment["transcript"]]
    assert answer["transcript"] == " ".join(words)


def test_a_segment_has_the_answer_of_its_audio_alone(recognizer, talk):
    for segment in recognizer((talk, SAMPLING_RATE))["segments"]:
        start, end = (round(segment[name] * SAMPLING_RATE) for name in ("start", "end"))
        alone = recognizer((talk[start:end], SAMPLING_RATE))
        assert flat(segment) == pytest.approx(flat(alone), abs=1e-5)
        assert segment["transcript"] == alone["transcript"]


@pytest.mark.parametrize(("lead", "within"), [(1000 * FRAME, 1e-5), (5 * SAMPLING_RATE, 0.1)])
def test_silence_in_front_changes_an_answer_little(recognizer, talk, lead, within):
    talk = np.concatenate([np.zeros(SAMPLING_RATE, np.int16), talk])
    answer = recognizer((talk, SAMPLING_RATE))
    later = recognizer((np.concatenate([np.zeros(lead, np.int16), talk]), SAMPLING_RATE))
    assert flat(later) == pytest.approx(flat(answer), abs=within)
    for one, other in zip(answer["segments"], later["segments"], strict=True):
        assert other["end"] - lead / SAMPLING_RATE == pytest.approx(one["end"], abs=1.1 * FRAME / SAMPLING_RATE)


@torch.inference_mode()
def test_a_short_recording_has_the_answer_of_one_forward_pass(recognizer, talk):
    samples = talk[: 3 * SAMPLING_RATE]
    answer = recognizer((samples, SAMPLING_RATE))
    (expected,) = answers_ser_mtl.infer(
        recognizer.model, recognizer.processor, [samples], front_end=ser_mtl.inference.recognizer.extract_features
    )
    (segment,) = answer["segments"]
    assert segment == {"start": 0.0, "end": 3.0, **expected}
    assert answer == {"duration": 3.0, **expected, "segments": [segment]}


def test_silence_is_no_speech_and_no_emotion(recognizer):
    for seconds in (0.2, 5, 70):
        silence = np.zeros(round(seconds * SAMPLING_RATE), np.int16)
        assert recognizer((silence, SAMPLING_RATE)) == {"duration": seconds, "speech": False, "segments": []}


def test_an_utterance_of_a_corpus_is_whole_even_in_silence(recognizer, talk):
    silence, long = np.zeros(16_000, np.int16), (talk, SAMPLING_RATE)
    first, second = recognizer.each([(silence, SAMPLING_RATE), long], whole=True)
    assert [(s["start"], s["end"]) for s in first["segments"]] == [(0, 1)] and first["emotion"]
    assert [(s["start"], s["end"]) for s in second["segments"]] == [(0, second["duration"])]


def test_below_the_probability_asked_for_the_label_is_unsure(recognizer, talk):
    certain = recognizer((talk, SAMPLING_RATE))
    limit = certain["emotion"]["probability"] + 1e-6
    answer = recognizer((talk, SAMPLING_RATE), abstain=limit)
    for part, before in ((answer, certain), *zip(answer["segments"], certain["segments"], strict=True)):
        for task in ("emotion", "gender", "style"):
            expected = before[task]["label"] if before[task]["probability"] >= limit else "unsure"
            assert part[task] == before[task] | {"label": expected}
    assert answer["emotion"]["label"] == "unsure"


def test_parts_are_joined_by_their_kind_wherever_they_stand():
    parts = [
        {"start": 0.0, "end": 1.0, "valence": {"value": 2.0}, "transcript": "a", "embeddings": {}},
        {"start": 5.0, "end": 8.0, "valence": {"value": 4.0}, "transcript": "", "embeddings": {}},
    ]
    whole = pipeline_ser_mtl._joined(9.0, parts)
    assert whole == {"duration": 9.0, "valence": {"value": 3.5}, "transcript": "a", "segments": parts}


def test_segments_come_before_the_answer_and_errors_in_their_place(recognizer, talk):
    recordings = [(talk, SAMPLING_RATE), "nowhere.wav", (talk[: 3 * SAMPLING_RATE], SAMPLING_RATE)]
    parts = list(recognizer.stream(recordings))
    assert [number for number, _ in parts] == [0] * 8 + [1] + [2] * 2
    answer = parts[7][1]
    assert answer["segments"] == [part for _, part in parts[:7]]
    assert isinstance(parts[8][1], ser_mtl.UserError)


def test_a_fault_far_into_a_recording_costs_no_other_its_answer(recognizer, talk, tmp_path):
    soundfile.write(tmp_path / "a.wav", np.tile(talk, 4), SAMPLING_RATE)
    content = (tmp_path / "a.wav").read_bytes()
    (tmp_path / "a.wav").write_bytes(content[: len(content) // 2])
    short = (talk[:16_000], SAMPLING_RATE)
    first, fault, last = recognizer.each([short, tmp_path / "a.wav", short])
    assert flat(first) == pytest.approx(flat(last), abs=1e-5) and "cut off" in str(fault)


def test_embeddings_are_those_of_the_model(recognizer, talk):
    answer = recognizer((talk, SAMPLING_RATE), embeddings=True)
    width = recognizer.model.config.embedding_dim
    for segment in answer["segments"]:
        assert {task: x.shape for task, x in segment["embeddings"].items()} == {
            task: (width,) for task in ("emotion", "gender", "style")
        }
    assert "embeddings" not in answer


def test_the_pipeline_gives_the_answer_of_the_recognizer(recognizer, talk):
    parts = {"feature_extractor": recognizer.processor.feature_extractor, "tokenizer": recognizer.processor.tokenizer}
    pipe = pipeline_ser_mtl.SpeechEmotionPipeline(model=recognizer.model, task="speech-emotion", **parts)
    answer = recognizer((talk, SAMPLING_RATE), abstain=0.6)
    piped = pipe((talk, SAMPLING_RATE), abstain=0.6)
    assert flat(piped) == pytest.approx(flat(answer), abs=1e-5)
    assert [(s["start"], s["end"]) for s in piped["segments"]] == [(s["start"], s["end"]) for s in answer["segments"]]


# --------------------------------------------------------------------------------------------------------------- live


def test_a_microphone_gives_block_after_block(monkeypatch):
    class Stream(nullcontext):
        def __init__(self, callback, blocksize, **_):
            super().__init__()
            for value in (1, 2):
                callback(np.full(blocksize, value, np.int16).tobytes(), blocksize, None, None)

    module = SimpleNamespace(RawInputStream=Stream, PortAudioError=OSError)
    monkeypatch.setitem(sys.modules, "sounddevice", module)
    with live.microphone() as (blocks, rate):
        assert [(len(block), block[0]) for block in islice(blocks, 2)] == [(rate // 2, 1), (rate // 2, 2)]


def test_a_line_every_half_second_says_what_is_heard_now(recognizer, talk, monkeypatch):
    samples = np.concatenate([talk[: 4 * SAMPLING_RATE], np.zeros(3 * SAMPLING_RATE, np.int16)])
    stdin = io.TextIOWrapper(io.BytesIO(samples.tobytes() + b"\0\0\0"))
    monkeypatch.setattr("sys.stdin", stdin)
    with live.standard_input(SAMPLING_RATE) as (blocks, rate):
        said = list(live.lines(recognizer, blocks, rate))
    assert len(said) == 14
    assert all(re.fullmatch(r"\d+\.\d s: .* \(delay \d+\.\d\d s\)", line) for line in said)
    first = recognizer((samples[:8000], SAMPLING_RATE))["emotion"]
    assert said[0].startswith(f"0.5 s: {first['label']} {first['probability']:.2f}, ")
    assert "no speech" not in said[3] and "no speech" in said[-1]


@pytest.mark.parametrize(
    ("flags", "said"),
    [(["--pcm", "1"], "--pcm 1: must be a rate"), (["--pcm", "16000", "--output", "x"], "--pcm: prints a line"),
     (["--microphone", "a.wav"], "--microphone: prints a line"), (["--abstain", "2", "a.wav"], "argument --abstain")],
    ids=str,
)  # fmt: skip
def test_what_cannot_be_listened_to_is_one_line(flags, said):
    check_one_line(run_script("predict", flags), "predict", said)
