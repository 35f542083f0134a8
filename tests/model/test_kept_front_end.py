"""Pins what is kept of a front end: half the bytes, the same answers, and no more of the disk than the user allows."""

import shutil
from collections import namedtuple
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from datasets import Dataset
from helpers.encoders import ENCODERS, all_tasks_config
from transformers import Wav2Vec2FeatureExtractor

from modeling_ser_mtl import SerMtlModel
from recordings_ser_mtl import waveforms
from ser_mtl.corpora.sixteen_bits import packed, unpacked
from ser_mtl.errors import Notice, UserError
from ser_mtl.model import front_end
from ser_mtl.model.fast_front_end import extract_features
from ser_mtl.model.front_end import with_features
from ser_mtl.training.arguments import SerMtlArguments

EXTRACTOR = Wav2Vec2FeatureExtractor(return_attention_mask=True)
CPU = torch.device("cpu")
LENGTHS = (9000, 400, 16000, 9100, 5000, 16000)


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    return tmp_path / "ser_mtl"


def decoded() -> Dataset:
    random = np.random.default_rng(0)
    samples = [random.normal(0, 3000, length).astype(np.int16) for length in LENGTHS]
    digests = [f"{number}" for number in range(len(LENGTHS))]
    return Dataset.from_dict({"samples": samples, "length": LENGTHS, "digest": digests})


def model_of(encoder: str) -> SerMtlModel:
    torch.manual_seed(0)
    return SerMtlModel(all_tasks_config(encoder)).eval()


def logits(model: SerMtlModel, features: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        output = model(features=features[None], frame_lengths=torch.tensor([len(features)]))
    return torch.cat([*(values.flatten() for values in output.task_logits.values()), output.asr_logits.flatten()])


@pytest.mark.filterwarnings("ignore::ser_mtl.errors.Notice")
@pytest.mark.parametrize("encoder", ENCODERS)
def test_kept_features_take_half_the_bytes_and_change_no_logit_by_a_thousandth(cache, encoder):
    model = model_of(encoder)
    kept = with_features(decoded(), model, EXTRACTOR, CPU).with_format("numpy")
    assert kept.features["features"].feature.dtype == "int16"
    for row, samples in zip(kept, decoded()["samples"][:], strict=True):
        alone = waveforms([np.array(samples, dtype=np.int16)], EXTRACTOR)["input_values"]
        with torch.no_grad():
            features, frames = extract_features(model, alone)
        features = features[0, : frames[0]]
        found = unpacked(row["features"], row["scales"])
        assert found.dtype == torch.float32 and found.shape == features.shape
        change = (logits(model, found) - logits(model, features)).abs().max()
        assert change < 1e-3


def test_the_largest_value_of_a_frame_and_zeros_and_nan_come_back():
    frames = torch.tensor([[0.5, -2.0, 1e-6], [0.0, 0.0, 0.0], [1e-30, -3e-30, 0.0], [1.0, torch.nan, 2.0]])
    found = unpacked(**packed(frames))
    torch.testing.assert_close(found[:3], frames[:3], rtol=0, atol=2 / 65_000)
    assert found[2, 1] == pytest.approx(-3e-30, rel=1e-4) and found[3].isnan().all()


Disk = namedtuple("Disk", "free")


def test_auto_leaves_half_of_the_free_disk_alone_and_says_so(cache, monkeypatch):
    model, corpus = model_of("wav2vec2, layer norm"), decoded()
    frames = int(model.frame_lengths(torch.tensor(LENGTHS)).sum())
    needed = frames * (2 * 16 + 4)  # 16 channels, and a scale
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: Disk(2 * needed - 2))
    with pytest.warns(
        Notice, match=r"runs in every step; its output would take \d+\.\d kB in .*, where \d+\.\d kB are"
    ):
        assert with_features(corpus, model, EXTRACTOR, CPU) is corpus
    assert not list(cache.glob("features-*"))
    monkeypatch.setattr(front_end, "ANNOUNCED", 0)
    with pytest.warns(Notice, match=r"output is kept, \d+\.\d kB in "):
        kept = with_features(corpus, model, EXTRACTOR, CPU, always=True)
    assert sum(kept.data.column(name).nbytes for name in ("features", "scales")) == pytest.approx(needed, rel=0.05)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: Disk(0))
    assert "features" in with_features(corpus, model, EXTRACTOR, CPU).column_names  # they are there already


@pytest.mark.filterwarnings("ignore::ser_mtl.errors.Notice")
def test_rows_in_another_order_keep_their_features(cache):
    model, order = model_of("wav2vec2, layer norm"), [3, 0, 5, 1]
    whole, chosen = decoded(), decoded().select(order)
    found = [with_features(one, model, EXTRACTOR, CPU).with_format("numpy") for one in (whole, chosen)]
    for row, place in zip(found[1], order, strict=True):
        np.testing.assert_allclose(row["features"], found[0][place]["features"], atol=2)


def test_what_changes_in_every_step_cannot_be_kept_always(tmp_path):
    with pytest.raises(UserError, match=r"^--front_end_cache always: --augment changes the audio in every step"):
        SerMtlArguments(output_dir=str(tmp_path), augment=["noise"], front_end_cache="always")


def test_always_stops_before_it_fills_the_disk(cache, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: Disk(1000))
    with pytest.raises(UserError, match=r"^--front_end_cache always: takes \d+\.\d kB in .*, where 1\.0 kB are free"):
        with_features(decoded(), model_of("wav2vec2, layer norm"), EXTRACTOR, CPU, always=True)
    assert not list(cache.glob("features-*"))
