"""Pins that torch.export and torch.compile take the model as it is loaded, whole, with padded input."""

import pytest
import torch
from helpers.encoders import ENCODERS, all_tasks_config

from modeling_ser_mtl import SerMtlModel

WAVEFORMS = torch.randn(2, 6000, generator=torch.Generator().manual_seed(0))
MASK = torch.arange(6000) < torch.tensor([[6000], [4000]])


FAST = ("wav2vec2, group norm", "Moonshine")  # of the others, each takes seconds
ALL = [encoder if encoder in FAST else pytest.param(encoder, marks=pytest.mark.slow) for encoder in ENCODERS]


@pytest.mark.parametrize("encoder", ALL)
def test_an_exported_model_gives_the_logits_for_other_lengths_too(encoder):
    model = SerMtlModel(all_tasks_config(encoder, bottleneck_dim=4)).eval()
    dynamic = {0: torch.export.Dim.AUTO, 1: torch.export.Dim.AUTO}
    exported = torch.export.export(model, (WAVEFORMS, MASK.long()), dynamic_shapes=(dynamic, dynamic)).module()
    for rows, samples in ((2, 6000), (1, 5000)):
        inputs = WAVEFORMS[:rows, :samples], MASK[:rows, :samples].long()
        with torch.no_grad():
            torch.testing.assert_close(exported(*inputs).logits, model(*inputs).logits, atol=1e-5, rtol=0)


@pytest.mark.parametrize("encoder", ALL)
def test_a_model_compiles_as_one_graph(encoder):
    model = SerMtlModel(all_tasks_config(encoder)).eval()
    with torch.no_grad():
        compiled = torch.compile(model, fullgraph=True, backend="aot_eager")(WAVEFORMS, MASK.long())
        torch.testing.assert_close(compiled.logits, model(WAVEFORMS, MASK.long()).logits, atol=1e-5, rtol=0)
