"""`ser_mtl.load`: a recording in any form gives one answer, and what is no recording is one clear line."""

import io
import math
from types import SimpleNamespace

import huggingface_hub
import numpy as np
import pytest
import soundfile
import torch
from helpers.tiny import SAMPLING_RATE, run_script, tone
from transformers.utils import cached_file

import ser_mtl
from recordings_ser_mtl import samples_of
from ser_mtl.corpora.level import Clipped
from ser_mtl.errors import Notice
from ser_mtl.model import saved


@pytest.fixture(scope="module")
def recognizer(finished2):
    return ser_mtl.load(finished2)


@pytest.fixture
def mono() -> np.ndarray:
    return (tone(440, 0.4) * 32767).astype(np.int16)


def test_an_answer_has_the_form_of_the_contract(recognizer, mono):
    answer = recognizer((mono, SAMPLING_RATE))
    assert list(answer) == ["duration", "emotion", "gender", "style", "transcript", "segments"]
    assert answer["duration"] == 0.4
    for task in ("emotion", "gender", "style"):
        assert set(answer[task]) == {"label", "probability", "probabilities"}
        assert sum(answer[task]["probabilities"].values()) == pytest.approx(1)
        assert answer[task]["probabilities"][answer[task]["label"]] == answer[task]["probability"]


def test_every_form_of_a_recording_gives_the_same_answer(recognizer, mono, tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, mono, SAMPLING_RATE, subtype="PCM_16")
    answer = recognizer(path)
    floats = mono.astype(np.float32) / 32768
    with open(path, "rb") as file:
        forms = [str(path), file, io.BytesIO(path.read_bytes()), (mono, SAMPLING_RATE), (floats, 16000.0)]
        forms += [(floats.tolist(), SAMPLING_RATE), (torch.from_numpy(floats), np.int64(SAMPLING_RATE))]
        forms += [(mono[None], SAMPLING_RATE), (mono[:, None], SAMPLING_RATE), (mono.astype(np.int32) * 2**16, 16000)]
        forms += [(np.stack([mono, mono]), SAMPLING_RATE), (np.stack([mono, mono], axis=1), SAMPLING_RATE)]
        forms += [((mono.astype(np.int32) + 2**15).astype(np.uint16), SAMPLING_RATE), (floats.astype(float), 16000)]
        for form in forms:
            assert recognizer(form) == answer


def test_a_list_gives_a_list_in_its_order(recognizer, mono):
    both = [(mono, SAMPLING_RATE), (mono[:4000], SAMPLING_RATE)]
    answers = recognizer(both)
    assert [answer["duration"] for answer in answers] == [0.4, 0.25]
    assert recognizer([]) == []
    for recording, answer in zip(both, answers, strict=True):
        alone = recognizer(recording)
        assert answer["emotion"]["probability"] == pytest.approx(alone["emotion"]["probability"], abs=1e-5)


def test_the_channels_are_averaged_and_the_rate_is_made_16_khz():
    left, right = tone(300, 0.5, 48_000), np.zeros(24_000)
    samples = samples_of((np.stack([left, right]), 48_000)) / 32768
    assert len(samples) == 8000
    spectrum = np.abs(np.fft.rfft(samples))
    assert np.argmax(spectrum) * SAMPLING_RATE / len(samples) == pytest.approx(300, abs=2)
    assert np.abs(samples[1000:-1000]).max() == pytest.approx(0.25, abs=0.01)


def test_coarse_types_are_the_same_sound_up_to_their_steps(mono):
    floats = torch.from_numpy(mono / 32768)
    eight_bits = np.round(mono / 256 + 128).astype(np.uint8)
    for samples, step in ((eight_bits, 256), (floats.bfloat16(), 128), (floats.half().requires_grad_(), 16)):
        assert np.abs(samples_of((samples, SAMPLING_RATE)).astype(int) - mono).max() <= step


def test_32_bits_of_silence_and_of_sound_have_their_range():
    for samples in (np.zeros(400, dtype=np.int32), np.array([0, 2**30] * 200, dtype=np.int32)):
        assert samples_of((samples, SAMPLING_RATE)).max() == samples.max() // 2**16


def test_the_overshoot_of_a_lossy_file_is_clipped():
    file = io.BytesIO()
    soundfile.write(file, np.clip(20 * tone(300, 0.4), -1, 1), SAMPLING_RATE, format="OGG")
    file.seek(0)
    samples, rate = soundfile.read(file)
    assert np.abs(samples).max() > 1.05
    clipped = samples_of((samples.clip(-1, 1), rate))
    assert np.array_equal(samples_of(io.BytesIO(file.getvalue())), clipped)


def test_a_few_samples_beyond_full_scale_are_clipped_and_counted(recognizer, mono, tmp_path):
    floats = np.repeat(mono, 4) / 32768
    floats[[10, 20, 30]] = 1.0, -1.0, 1.0
    answer = recognizer((floats, SAMPLING_RATE))
    floats[[10, 20, 30]] = 1.3, -9.0, 1.01
    soundfile.write(tmp_path / "a.wav", floats, SAMPLING_RATE, subtype="FLOAT")
    for recording, name in (((floats, SAMPLING_RATE), "recording 1"), (tmp_path / "a.wav", r".*a\.wav")):
        with pytest.warns(Clipped, match=rf"\A{name}: 3 of 25600 samples are beyond -1\.\.1 \(peak 9\.00\)"):
            assert recognizer(recording) == answer
    ended = run_script("predict", [tmp_path / "a.wav", "--model", recognizer.model.name_or_path])
    assert f"ser-mtl predict: {tmp_path / 'a.wav'}: 3 of 25600 samples" in ended.stderr


def test_a_file_that_cannot_seek_is_read(recognizer, mono, tmp_path):
    soundfile.write(tmp_path / "a.wav", mono, SAMPLING_RATE)
    pipe = SimpleNamespace(read=io.BytesIO((tmp_path / "a.wav").read_bytes()).read)
    assert recognizer(pipe) == recognizer(tmp_path / "a.wav")


def test_chunks_of_a_list_change_no_answer(recognizer, mono, monkeypatch):
    recordings = [(mono[:n], SAMPLING_RATE) for n in (4000, 6000, 2000, 5000)]
    whole = recognizer(recordings)
    monkeypatch.setattr("pipeline_ser_mtl.AT_ONCE", 7000)
    for answer, expected in zip(recognizer(recordings), whole, strict=True):
        assert answer["duration"] == expected["duration"]
        assert answer["emotion"]["probabilities"] == pytest.approx(expected["emotion"]["probabilities"], abs=1e-5)


def test_a_fraction_of_a_frame_has_an_answer_and_one_notice(recognizer, mono, tmp_path):
    with pytest.warns(Notice, match=r"^recording 1: .*less than one frame[^\n]*$") as caught:
        assert recognizer((mono[1:2], SAMPLING_RATE))["emotion"]
    assert len(caught) == 1
    soundfile.write(tmp_path / "short.wav", mono[1:2], SAMPLING_RATE)
    with pytest.warns(Notice, match=rf"^{tmp_path}/short.wav: .*less than one frame"):
        recognizer(tmp_path / "short.wav")


def test_each_goes_on_after_a_recording_that_cannot_be_read(recognizer, mono):
    first, error, last = recognizer.each([(mono, SAMPLING_RATE), "nowhere.wav", (mono[:4000], SAMPLING_RATE)])
    assert (first["duration"], last["duration"]) == (0.4, 0.25)
    assert isinstance(error, ser_mtl.UserError) and str(error).startswith("nowhere.wav: ")


@pytest.mark.parametrize(("kind", "bits"), [(np.int32, 32), (np.int64, 64)])
def test_integers_that_fill_a_wider_type_are_the_same_sound(mono, kind, bits):
    wide = mono.astype(kind) << (bits - 16)
    assert np.array_equal(samples_of((wide, SAMPLING_RATE)), samples_of((mono, SAMPLING_RATE)))
    with pytest.raises(ValueError, match="their range is not that of the type"):
        samples_of((mono.astype(kind), SAMPLING_RATE))


@pytest.mark.parametrize(
    ("recording", "said"),
    [
        ((np.zeros(0), 16000), "shape (0,)"),
        ((np.zeros((2, 2, 2)), 16000), "shape (2, 2, 2)"),
        ((np.float32(0), 16000), "shape ()"),
        ((np.array([3, -32768], dtype=np.int32), 16000), "samples of type int32 up to 32768: their range is not"),
        ((np.array([3, 32768], dtype=np.uint32), 16000), "samples of type uint32 up to 32768: their range is not"),
        ((torch.tensor([3, -5]), 16000), "samples of type int64 up to 5: their range is not"),
        (([0.1, math.nan], 16000), "NaN"),
        (([0.1, 300.0], 16000), "within -1 and 1"),
        (([0.1, -1.01], 16000), "divide or clip"),
        (([1j, 2j], 16000), "complex"),
        (([True, False], 16000), "bool"),
        ((["a", "b"], 16000), "type"),
        (([[0.1], [0.1, 0.2]], 16000), "array"),
        (([0.1], 0), "sampling rate 0"),
        (([0.1], -16000), "sampling rate -16000"),
        (([0.1], 16000.5), "whole number"),
        (([0.1], math.nan), "whole number"),
        (([0.1], math.inf), "whole number"),
        (([0.1], True), "whole number"),
        (([0, 100, -100], 16000), "recording 1: a list of integers has no range"),
        ((np.array([1e300, 0]), 16000), "1e+300"),
        ((np.full(100, 2.0), 16000), "within -1 and 1"),
        ((8000 * tone(440, 0.4), 16000), "recording 1: samples up to 4000"),
        ((np.full((100, 2), np.inf), 16000), "NaN or infinite"),
        ((np.zeros((2, 0)), 16000), "(2, 0)"),
        ((np.float32(0.5), 16000), "shape ()"),
        ("", "cannot be read as audio"),
        (io.StringIO("text"), "binary mode"),
        (io.TextIOWrapper(io.BytesIO(b"RIFF\xff")), "binary mode"),
        (io.BytesIO(), "cannot be read as audio"),
        (b"RIFF", "bytes"),
        (([0.1], "16000"), "whole number"),
        (([0.1], 10**9), "sampling rate"),
        (([0.1],), "(samples, rate)"),
        (np.zeros(16000), "ndarray"),
        (None, "NoneType"),
        ("nowhere.wav", "nowhere.wav"),
        (io.BytesIO(b"no audio"), "cannot be read as audio"),
        ((np.zeros((300, 200)), 16000), "shape (300, 200)"),
        ((np.zeros((65, 16000)), 16000), "at most 64 channels"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, io.IOBase) else str(value),
)  # fmt: skip
def test_what_is_no_recording_is_one_clear_line(recognizer, recording, said):
    with pytest.raises(ser_mtl.UserError) as caught:
        recognizer(recording)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_message_says_which_recording_of_a_list(recognizer, mono):
    with pytest.raises(ser_mtl.UserError, match="recording 2: sampling rate 0"):
        recognizer([(mono, SAMPLING_RATE), (mono, 0)])


@pytest.mark.parametrize(
    "options",
    [{"device": "cuda:99"}, {"device": "phone"}, {"device": "meta"}, {"dtype": "float33"}, {"dtype": torch.int8}],
    ids=str,
)
def test_a_device_or_type_that_does_not_exist_is_one_line(finished2, options):
    with pytest.raises(ser_mtl.UserError, match=r"\A[^\n]+\Z") as caught:
        ser_mtl.load(finished2, **options)
    assert str(next(iter(options.values()))) in str(caught.value)


@pytest.mark.parametrize("name", ["nowhere", "ada/nowhere"])
def test_a_model_that_cannot_be_loaded_is_named(hub, name):
    with pytest.raises(ser_mtl.UserError, match=f"model {name}"):
        ser_mtl.load(name)


@pytest.mark.parametrize("native", [True, False])
def test_auto_is_bfloat16_where_the_cpu_computes_in_it(finished2, monkeypatch, native):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": native, "amx_bf16": False})
    recognizer = ser_mtl.load(finished2, device="cpu", dtype="auto")
    assert recognizer.model.dtype == (torch.bfloat16 if native else torch.float32)


def test_a_recognizer_in_bfloat16_gives_answers(finished2, mono):
    exact = ser_mtl.load(finished2, device="cpu")((mono, SAMPLING_RATE))
    for dtype in ("bfloat16", torch.bfloat16):
        recognizer = ser_mtl.load(finished2, device="cpu", dtype=dtype)
        assert {weight.dtype for weight in recognizer.model.parameters()} == {torch.bfloat16}
    answer = recognizer((mono, SAMPLING_RATE))
    assert answer["emotion"]["probability"] == pytest.approx(exact["emotion"]["probability"], abs=0.05)


@pytest.mark.parametrize(("mode", "said"), [("r", "binary mode"), ("wb", "cannot be read"), ("rb", "closed file")])
def test_a_file_open_in_another_way_is_one_clear_line(mode, said, tmp_path):
    path = tmp_path / "speech.wav"
    soundfile.write(path, tone(440, 0.4), SAMPLING_RATE)
    with open(path, mode) as file:
        if mode == "rb":
            file.close()
        with pytest.raises(ValueError, match=f"speech.wav: .*{said}"):
            samples_of(file)


def test_a_hub_that_cannot_be_reached_is_asked_for_one_file_alone(monkeypatch):
    asked = []

    def counted(*words, **options):
        asked.append(words[1])
        return cached_file(*words, **options)

    monkeypatch.setattr(saved, "cached_file", counted)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ser_mtl.UserError, match="couldn't connect"):
        ser_mtl.load("ada/nowhere")
    assert asked == ["config.json"]
