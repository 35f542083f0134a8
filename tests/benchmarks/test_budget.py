"""What an update costs, counted without a GPU: as by hand, as torch's own autocast has it, and as measured on a CPU."""

import json
import os
import subprocess
import sys
from unittest.mock import patch

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.tiny import ROOT
from test_device import autocast
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import Wav2Vec2Config

from benchmarks import budget
from benchmarks.budget import CARDS, Card, Flags, flags_that_fit
from benchmarks.updates import (
    Cost,
    GpuAutocast,
    LiveBytes,
    SavedBytes,
    Update,
    batch_of,
    cost_of,
    ctc_without_data,
    efficient_attention,
    model_of,
    with_empty_weights,
)

DIM, FF = 64, 128
FRONT_END = {"conv_dim": (8, 8), "conv_kernel": (10, 8), "conv_stride": (5, 4), "conv_bias": True}
ENCODER = Wav2Vec2Config(
    **FRONT_END,
    hidden_size=DIM,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=FF,
    num_conv_pos_embeddings=8,
    num_conv_pos_embedding_groups=2,
    do_stable_layer_norm=True,
    feat_extract_norm="layer",
    layerdrop=0.0,
)
MIDDLE = {
    "hidden_size": 512,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "intermediate_size": 2048,
    "do_stable_layer_norm": True,
    "feat_extract_norm": "layer",
    "layerdrop": 0.0,
}


def test_memory_is_counted_as_long_as_a_tensor_lives():
    with LiveBytes() as living:
        a = torch.zeros(100)
        b = a[10:].view(2, 45)  # the same memory
        c = a * 2
        del c
        assert (living.bytes, living.peak) == (400, 800)
        del a
        assert living.bytes == 400
        del b
        assert (living.bytes, living.peak) == (0, 800)


def test_saved_bytes_are_inputs_and_what_the_gradient_needs_without_parameters():
    model, inputs = nn.Linear(32, 48), torch.randn(5, 32)
    with (found := SavedBytes(model)):
        F.gelu(model(inputs)).sum()
    assert found.bytes == 4 * (5 * 32 + 5 * 48)  # what the layer multiplies with its gradient, and what GELU saw


def test_weights_and_what_is_kept_of_the_trained_ones_are_those_of_the_model():
    cost = cost_of(ENCODER, Update(1, 2, 20))
    model = model_of(ENCODER, 1)
    numbers = sum(p.numel() for p in model.parameters())
    front_end = (8 * 1 * 10 + 3 * 8) + (8 * 8 * 8 + 3 * 8)  # weights, biases, and two of each norm
    assert cost.weights == 4 * numbers
    assert cost.trained == (4 + 8) * (numbers - front_end)
    assert cost.peak > cost.weights + cost.trained * 8 // 12 + cost.saved


def test_operations_are_those_of_the_layers_and_twice_as_many_backward():
    batch, frames = 2, 20
    n = batch * frames
    layer = 4 * DIM * DIM + 2 * DIM * FF + 2 * frames * DIM
    others = 8 * DIM + DIM * DIM * 8 // 2 * (frames + 1) / frames + 32 * DIM  # projection, positions, characters
    forward = 2 * n * (2 * layer + others) + 2 * batch * (DIM * 256 + 256 * 4)
    found = cost_of(ENCODER, Update(1, batch, frames)).flops
    # The kernel of attention computes its scores again; the features of the frozen front end need no gradient.
    expected = 3 * forward + 2 * n * (2 * frames * DIM - 8 * DIM)
    assert found == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("stage", [1, 2])
def test_half_precision_saves_what_torchs_own_autocast_saves_on_a_gpu(stage):
    update = Update(stage, 2, 24)
    found = []
    for device in ("cpu", "cuda"):
        model = model_of(ENCODER, stage).train()
        with FakeTensorMode(), torch.device(device), patch.object(F, "ctc_loss", ctc_without_data):
            model, batch, saved = with_empty_weights(model), batch_of(update, 8), SavedBytes(nn.Identity())
            if device == "cpu":
                with GpuAutocast(torch.bfloat16), saved:
                    model(**batch)
            else:
                kernel = patch.object(F, "scaled_dot_product_attention", efficient_attention)
                with kernel, autocast(torch.bfloat16), saved:
                    model(**batch)
            found.append(saved.bytes)
    assert found[0] == found[1]


def made_up(update: Update) -> Cost:
    """A cost that is simple to compute with."""
    peak = update.batch * (10 if update.checkpointing else 100) + 50 * update.steps
    return Cost(update.batch * (update.frames**2 + 5 * update.frames), 0, 0, 0, peak)


def test_the_flags_of_a_card_are_the_first_that_fit(monkeypatch):
    monkeypatch.setattr(budget, "cost", made_up)
    monkeypatch.setattr(budget, "RUNTIME", 0)
    fitting = {
        1650: Flags(),
        1649: Flags(2),
        500: Flags(4),
        210: Flags(1, True),
        209: Flags(2, True),
        110: Flags(16, True),
    }
    for peak, way in fitting.items():
        assert flags_that_fit(Card("", 1.1 * peak + 1e-6, 1e12), 1) == way
    assert flags_that_fit(Card("", 1.1 * 109, 1e12), 1) is None


def test_hours_are_the_operations_of_all_epochs_by_the_cards_speed(monkeypatch):
    monkeypatch.setattr(budget, "cost", made_up)
    monkeypatch.setattr(budget, "iemocap_lengths", lambda: np.full(160, 7.0))
    of_all = 200 * 0.8 * 160 * (350**2 + 5 * 350)
    assert budget.hours(CARDS[2], 1, Flags(), 0.5) == pytest.approx(of_all / 0.5 / 312e12 / 3600)


def test_the_program_prints_every_card_and_writes_what_it_prints(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(budget, "cost", made_up)
    monkeypatch.setattr(sys, "argv", ["budget.py", "--share", "0.5", "--json", str(tmp_path / "budget.json")])
    budget.main()
    printed = capsys.readouterr().out
    assert all(printed.count(card.name) == 2 for card in CARDS)
    written = json.loads((tmp_path / "budget.json").read_text())
    assert (written["share_of_peak"], len(written["memory"]), len(written["cards"])) == (0.5, 30, 12)
    assert {row["flags"] for row in written["cards"]} == {"", "--fp16 True"}


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("stage", [1, 2])
def test_the_peak_is_within_15_percent_of_a_measured_one(stage, checkpointing, dtype):
    code = (
        "import torch; from transformers import Wav2Vec2Config; from benchmarks.updates import Update, measured_peak;"
        f"update = Update({stage}, 8, 300, torch.{dtype}, {checkpointing});"
        f"print(measured_peak(Wav2Vec2Config(**{MIDDLE!r}), update))"
    )
    env = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"}
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, env=env)
    assert ended.returncode == 0, ended.stderr
    update = Update(stage, 8, 300, getattr(torch, dtype), checkpointing)
    counted = cost_of(Wav2Vec2Config(**MIDDLE), update, on_cpu=True).peak
    assert counted == pytest.approx(int(ended.stdout), rel=0.15)
