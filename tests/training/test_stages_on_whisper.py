"""Both stages on the encoder half of Whisper."""

import json
from pathlib import Path

import pytest
import soundfile
import torch
from helpers.encoders import ENCODERS
from helpers.tiny import SAMPLING_RATE, check_refused, run_flags, run_script, tone
from transformers import WhisperFeatureExtractor, WhisperForConditionalGeneration, set_seed

import ser_mtl
from modeling_ser_mtl import SerMtlModel
from ser_mtl.training.method import with_overrides
from ser_mtl.training.stage import Stage1

OF_THE_HUB = {
    "forced_decoder_ids": [[1, 5], [2, 6]],
    "suppress_tokens": [1, 2],
    "max_length": 448,
    "torch_dtype": "float32",
}
"""What the config of a Whisper on the Hub holds beside its sizes."""


@pytest.fixture(scope="module")
def whisper(tmp_path_factory) -> Path:
    """A random Whisper as it is on the Hub."""
    folder = tmp_path_factory.mktemp("whisper")
    set_seed(0)
    WhisperForConditionalGeneration(ENCODERS["Whisper"]).save_pretrained(folder)
    WhisperFeatureExtractor(feature_size=16).save_pretrained(folder)
    config = folder / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | OF_THE_HUB))
    return folder


@pytest.fixture(scope="module")
def stage1(whisper, good_corpus, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("runs") / "stage1"
    ended = run_script("run_stage1", run_flags(good_corpus, output, encoder=whisper, num_train_epochs=1))
    assert ended.code == 0, ended.stderr
    return output


def test_stage_1_trains_the_layers_and_leaves_front_end_and_positions(whisper, stage1):
    before = WhisperForConditionalGeneration.from_pretrained(whisper).get_encoder().state_dict()
    after = SerMtlModel.from_pretrained(stage1).encoder.state_dict()
    assert after.keys() == before.keys()
    same = {name for name, value in after.items() if torch.equal(value, before[name])}
    fixed = {name for name in after if name.startswith(("conv", "embed_positions"))}
    assert same - {name for name in after if "k_proj.bias" in name} == fixed


def test_stage_2_merged_and_unmerged_answer_the_same(stage1, good_corpus, tmp_path):
    flags = run_flags(good_corpus, tmp_path / "stage2", stage1=stage1, num_train_epochs=1)
    for script, words in (
        ("run_stage2", flags),
        ("export", [tmp_path / "stage2", "--to", "merged", "--output_dir", tmp_path / "merged"]),
    ):
        ended = run_script(script, words)
        assert ended.code == 0, ended.stderr
    files = sorted(good_corpus.glob("*.wav"))[:3]
    adapted, merged = (ser_mtl.load(tmp_path / name)(files) for name in ("stage2", "merged"))
    for one, other in zip(adapted, merged, strict=True):
        assert one["emotion"]["probabilities"] == pytest.approx(other["emotion"]["probabilities"], abs=1e-5)


def test_heads_are_trained_on_a_learned_average_of_its_layers(whisper, good_corpus, tmp_path):
    flags = run_flags(good_corpus, tmp_path / "out", encoder=whisper, num_train_epochs=1, trainable="heads")
    ended = run_script("run_stage1", [*flags, "--tasks", "emotion", "--mask_time_prob", "0"])
    assert ended.code == 0, ended.stderr
    assert SerMtlModel.from_pretrained(tmp_path / "out").layer_weights.weights.shape == (3,)


def test_an_utterance_without_positions_is_named_before_training(whisper, good_corpus, tmp_path):
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for file in good_corpus.iterdir():
        (corpus / file.name).symlink_to(file)
    long = sorted(corpus.glob("*.wav"))[0]
    long.unlink()
    soundfile.write(long, tone(440, 2.1), SAMPLING_RATE)
    flags = run_flags(corpus, tmp_path / "out", encoder=whisper)
    check_refused("run_stage1", flags, long, "lasts 2.1 seconds", "positions for 2 (1 such utterances in all)")


@pytest.mark.parametrize(
    ("flags", "probabilities"),
    [({}, (0.0, 0.0)), ({"mask_time_prob": 0.1}, (0.1, 0.0)), ({"mask_feature_prob": 0.2}, (0.0, 0.2))],
)
def test_spec_augment_is_off_unless_a_flag_asks_for_it(flags, probabilities):
    config = type(ENCODERS["Whisper"])(**ENCODERS["Whisper"].to_dict())
    assert not config.apply_spec_augment and config.mask_time_prob == 0.05
    found = with_overrides(config, Stage1(dropout=0.3, **flags))
    assert (found.mask_time_prob, found.mask_feature_prob) == probabilities
    assert found.apply_spec_augment and found.dropout == found.attention_dropout == 0.3
