"""Transcripts: of the model that its CTC head was trained on, which in stage 2 is the one under the adapters."""

import copy
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import soundfile
import torch
from helpers.encoders import ENCODERS, all_tasks_config
from helpers.tiny import SAMPLING_RATE, run_script, tone
from transformers import Wav2Vec2FeatureExtractor, Wav2Vec2Processor

import ser_mtl
from answers_ser_mtl import transcript_source
from modeling_ser_mtl import SerMtlModel
from ser_mtl.corpora.targets import character_tokenizer
from ser_mtl.errors import Notice
from ser_mtl.inference.recognizer import Recognizer, infer
from ser_mtl.training.adapters import attach_adapters, unwrap

TOKENIZER = character_tokenizer(["the quick brown fox"])
EXTRACTOR = Wav2Vec2FeatureExtractor(return_attention_mask=True)
PROCESSOR = Wav2Vec2Processor(feature_extractor=EXTRACTOR, tokenizer=TOKENIZER)


def utterances() -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [random.normal(0, 3000, n).astype(np.int16) for n in (3000, 9000, 4000, 8000)]


def stage2(encoder: str = "wav2vec2, layer norm", tasks=("emotion", "gender"), save_ctc_head: bool = False):
    """A random base, and a copy of it with random adapters."""
    torch.manual_seed(0)
    config = all_tasks_config(encoder, tasks=list(tasks), bottleneck_dim=4, vocab_size=len(TOKENIZER))
    base = SerMtlModel(config).eval()
    torch.nn.init.normal_(base.ctc_head.weight)
    adapted = unwrap(attach_adapters(copy.deepcopy(base), "base", 4, 4, save_ctc_head)).eval()
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name or ("layer_adapters" in name and "modules_to_save" in name):
                parameter.normal_()
    return base, adapted


@torch.inference_mode()
def transcripts(model: SerMtlModel) -> list[str]:
    """As the processor decodes them, one by one, without characters that are unknown."""
    batches = (PROCESSOR(s / 32768, sampling_rate=SAMPLING_RATE, return_tensors="pt") for s in utterances())
    texts = [PROCESSOR.batch_decode(model(**batch).asr_logits.argmax(-1))[0] for batch in batches]
    return [text.replace("[UNK]", "") for text in texts]


@pytest.mark.parametrize("encoder", ENCODERS)
def test_transcripts_of_stage_two_are_those_of_the_frozen_model(encoder):
    base, adapted = stage2(encoder)
    heard = [answer["transcript"] for answer in infer(adapted, PROCESSOR, utterances(), batch_seconds=0.6)]
    assert heard == transcripts(base) != transcripts(adapted)


def test_the_other_answers_are_those_with_the_adapters_on():
    _, adapted = stage2()
    first, again = (infer(adapted, PROCESSOR, utterances()) for _ in range(2))  # the first leaves the adapters on
    assert first == again
    for answer in again:
        del answer["transcript"]
    assert infer(adapted, PROCESSOR, utterances(), transcript=False) == again


def test_a_stage_two_that_learned_to_transcribe_does_so_itself():
    _, adapted = stage2(tasks=("emotion", "asr", "gender"))
    heard = [answer["transcript"] for answer in infer(adapted, PROCESSOR, utterances())]
    assert transcript_source(adapted) == "adapted" and heard == transcripts(adapted)


def test_without_the_layers_of_its_ctc_head_no_model_transcribes():
    merged = attach_adapters(stage2()[0], "base", 4, 4).merge_and_unload()
    for model in (merged, stage2()[0], stage2(save_ctc_head=True)[1]):
        assert transcript_source(model) is None
        assert all("transcript" not in answer for answer in infer(model, PROCESSOR, utterances()))


def test_threads_that_share_a_recognizer_get_the_same_answers():
    recognizer = Recognizer(stage2()[1], PROCESSOR)
    recordings = [(samples, SAMPLING_RATE) for samples in utterances()]
    expected, alone = recognizer(recordings), [recognizer(recording) for recording in recordings]
    with ThreadPoolExecutor(8) as threads:
        assert all(answers == expected for answers in threads.map(recognizer, [recordings] * 16))
        assert list(threads.map(recognizer, recordings * 4)) == alone * 4


def test_the_front_end_runs_once(monkeypatch):
    _, adapted = stage2("Moonshine")
    calls = []
    usual = SerMtlModel.extract_features
    monkeypatch.setattr(SerMtlModel, "extract_features", lambda *args: calls.append(1) or usual(*args))
    infer(adapted, PROCESSOR, utterances())
    assert len(calls) == 1


def test_a_merged_model_says_in_a_line_that_it_has_no_transcript(finished2, tmp_path):
    merged = tmp_path / "merged"
    assert run_script("export", [finished2, "--to", "merged", "--output_dir", merged]).code == 0
    soundfile.write(tmp_path / "a.wav", tone(440, 0.4), SAMPLING_RATE)
    with pytest.warns(Notice, match=r"\Amodel .*merged: answers have no transcript: [^\n]*\Z"):
        assert "transcript" not in ser_mtl.load(merged)(tmp_path / "a.wav")
    ended = run_script("predict", [tmp_path / "a.wav", "--model", merged])
    assert f"ser-mtl predict: model {merged}: answers have no transcript" in ended.stderr
    assert (ended.code, '"' in ended.stdout) == (0, False)
    assert run_script("predict", [tmp_path / "a.wav", "--model", merged, "--no_transcript"]).stderr == ""


def test_a_transcript_is_left_out_on_request(finished2, tmp_path):
    soundfile.write(tmp_path / "a.wav", tone(440, 0.4), SAMPLING_RATE)
    recognizer = ser_mtl.load(finished2)
    whole = recognizer(tmp_path / "a.wav")
    assert whole.pop("transcript") == whole["segments"][0].pop("transcript")
    assert recognizer(tmp_path / "a.wav", transcript=False) == whole
    assert ser_mtl.load(finished2, transcript=False)(tmp_path / "a.wav") == whole
    flags = [tmp_path, "--model", finished2, "--format", "json", "--no_transcript"]
    assert '"emotion"' in (printed := run_script("predict", flags).stdout) and '"transcript"' not in printed
