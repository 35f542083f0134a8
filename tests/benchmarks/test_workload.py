"""The speed benchmark's workload: lengths as IEMOCAP's, shares of padding, and operations that torch counts alike."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from helpers.trainers import noise_trainer
from torch.utils.flop_counter import FlopCounterMode
from transformers import Wav2Vec2Model

from benchmarks.measuring import Epoch, train_an_epoch
from benchmarks.throughput import OURS, minutes_of_a_fold
from benchmarks.workload import iemocap_lengths, padded_share, transformer_flops, utterances_of_batches, xls_r_300m


def test_lengths_are_those_of_iemocap():
    """4.5 seconds in the mean, and batches of 16 at random are 62.8 % padding."""
    lengths = iemocap_lengths()
    random = np.random.default_rng(0).permutation(len(lengths))
    assert len(lengths) == 5_531
    assert lengths.mean() == pytest.approx(4.5, abs=0.1)
    assert (lengths.min(), lengths.max()) == pytest.approx((0.58, 34.14), abs=1.5)
    assert padded_share(lengths, random) == pytest.approx(0.628, abs=0.02)


def test_a_few_batches_are_padded_as_the_whole_epoch_is():
    lengths = utterances_of_batches(12)
    assert len(lengths) == 12 * 16
    assert padded_share(lengths, range(len(lengths))) < 0.03


def test_padded_share_is_what_the_longest_of_each_batch_leaves():
    lengths = np.array([1.0] * 15 + [2.0] + [4.0])
    assert padded_share(lengths, range(17)) == pytest.approx(15 / (32 + 4))


def test_operations_of_the_transformer_are_those_that_torch_counts():
    config = xls_r_300m()
    config._attn_implementation = "eager"
    with torch.device("meta"):
        model = Wav2Vec2Model(config).eval()
        features = torch.randn(1, 200, config.hidden_size)
    with FlopCounterMode(display=False) as counter:
        model.encoder(features)
    seconds = np.array([200 * 320 / 16_000])
    assert transformer_flops(config, seconds, 1) == pytest.approx(counter.get_total_flops(), rel=0.01)


def test_a_fold_is_one_front_end_pass_and_200_epochs_of_four_fifths():
    rows = [{"name": name, "audio_seconds_per_second": speed} for name, speed in zip(OURS, (100, 200), strict=True)]
    corpus = iemocap_lengths().sum()
    expected = (corpus / 50 + 160 * corpus / 100 + 160 * corpus / 200) / 60
    assert minutes_of_a_fold([*rows, {"name": "stock", "audio_seconds_per_second": 1}], 50) == pytest.approx(expected)


def test_an_epoch_is_timed_without_a_run_folder(tmp_path):
    trainer = noise_trainer(tmp_path, logging_strategy="no")
    trainer.add_callback(clock := Epoch())
    assert train_an_epoch(trainer, clock, warming_up=False) > 0
    assert trainer.state.global_step == 1
    assert not (tmp_path / "run" / "results.json").exists()


@pytest.mark.slow
def test_the_speed_benchmark_runs_to_its_end(tmp_path):
    file = tmp_path / "speed.json"
    subprocess.run([sys.executable, "-m", "benchmarks.throughput", "--quick", "--json", file], check=True)
    assert all(row["ratio_to_stock"] > 0 for found in json.loads(file.read_text()) for row in found["rows"])
