"""Merging a model of speech recognition and one of emotion, against its formula."""

import json
from copy import deepcopy

import pytest
import torch
from helpers.encoders import all_tasks_config
from helpers.tiny import check_refused, run_flags, run_script

from modeling_ser_mtl import SerMtlModel
from ser_mtl.errors import UserError
from ser_mtl.research.arguments import ResearchArguments
from ser_mtl.research.merging import LayerMerge
from ser_mtl.training.arguments import SerMtlArguments
from ser_mtl.training.stage import Stage1, Stage2


@pytest.fixture
def three() -> list[SerMtlModel]:
    """The model whose weights are made, the one of speech recognition, and the one of emotion."""
    models = []
    for seed in range(3):
        torch.manual_seed(seed)
        models.append(SerMtlModel(all_tasks_config(fusion="concat")).eval())
    return models


def weights_of(model: SerMtlModel) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.encoder.state_dict().items()}


@pytest.mark.parametrize(("coefficients", "parent"), [((0.0, 0.0), 0), ((1.0, 0.0), 1), ((0.0, 1.0), 2)])
def test_all_of_one_parent_is_that_parent_bitwise(three, coefficients, parent):
    expected = weights_of(three[parent])
    merge = LayerMerge(*three)
    merge.coefficients.data[:] = torch.tensor(coefficients)
    merge.merge()
    found = weights_of(three[0])
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_each_layer_is_the_base_and_its_shares_of_both_differences(three):
    base, asr, emotion = map(weights_of, three)
    merge = LayerMerge(*three)
    assert list(merge.groups) == ["layer 1", "layer 2", "other"] and (merge.coefficients == 0.5).all()
    merge.coefficients.data[:] = torch.tensor([[0.2, 0.7], [-0.1, 1.2], [0.5, 0.5]])
    merge.merge()
    for name, found in weights_of(three[0]).items():
        layer = name.removeprefix("encoder.layers.")[0] if name.startswith("encoder.layers.") else "other"
        a, b = {"0": (0.2, 0.7), "1": (-0.1, 1.2), "other": (0.5, 0.5)}[layer]
        expected = base[name] + a * (asr[name] - base[name]) + b * (emotion[name] - base[name])
        torch.testing.assert_close(found, expected, msg=name)


def test_the_gradient_of_a_coefficient_is_the_slope_of_the_loss(three):
    model = three[0].double()
    merge = LayerMerge(model, three[1].double(), three[2].double()).double()
    waveforms = torch.randn(2, 4000, dtype=torch.float64)
    labels = {"emotion_labels": torch.tensor([0, 2])}

    def loss() -> torch.Tensor:
        merge.merge()
        return model(waveforms, **labels).task_logits["emotion"].square().sum()

    loss().backward()
    merge.collect()
    assert all(parameter.grad is None for parameter in model.encoder.parameters())
    found, step = merge.coefficients.grad.clone(), 3e-3
    for place in ((0, 0), (1, 1), (2, 0)):
        with torch.no_grad():
            ends = []
            for sign in (1, -1):
                merge.coefficients[place] += sign * step
                ends.append(loss().item())
                merge.coefficients[place] -= sign * step
        assert found[place].item() == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=3e-3)  # float32 in the means


def merge_flags(good_corpus, finished, output, **more) -> list[object]:
    encoder = json.loads((finished / "args.json").read_text())["method"]["encoder"]
    flags = {"encoder": encoder, "tasks": "emotion", "merge_asr": finished, "merge_emotion": finished} | more
    return run_flags(good_corpus, output, **flags)


def test_halves_of_the_same_model_are_that_model_untrained(good_corpus, finished, tmp_path):
    ended = run_script("run_stage1", merge_flags(good_corpus, finished, tmp_path / "out", merge="half"))
    assert ended.code == 0, ended.stderr
    merged, parent = (SerMtlModel.from_pretrained(folder) for folder in (tmp_path / "out", finished))
    own = dict(merged.named_parameters())
    assert all(torch.equal(own[name], value) for name, value in parent.named_parameters() if name in own)
    args, results = (json.loads((tmp_path / "out" / name).read_text()) for name in ("args.json", "results.json"))
    assert (args["training"]["num_train_epochs"], args["training"]["learning_rate"]) == (1, 0)
    assert results["epoch"] == 1 and results["tasks"] == ["emotion"]


def test_learned_coefficients_move_and_leave_a_plain_model(good_corpus, finished, tmp_path):
    ended = run_script("run_stage1", merge_flags(good_corpus, finished, tmp_path / "out"))
    assert ended.code == 0, ended.stderr
    shares = json.loads((tmp_path / "out/merge.json").read_text())
    assert list(shares) == ["layer 1", "layer 2", "other"]
    assert all(0 < abs(share - 0.5) < 0.5 for layer in shares.values() for share in layer.values())
    assert not [name for name in SerMtlModel.from_pretrained(tmp_path / "out").state_dict() if "merge" in name]
    again = run_script("run_stage1", merge_flags(good_corpus, finished, tmp_path / "out", merge="half"))
    assert again.code == 2 and "holds another run" in again.stderr  # what is merged is part of what a run is


def test_models_that_do_not_go_together_are_refused(good_corpus, finished, tmp_path):
    flags = merge_flags(good_corpus, finished, tmp_path / "out", embedding_dim=8)
    check_refused("run_stage1", flags, f"--merge_emotion {finished}: has embedding_dim", "which is 8 here")
    args = SerMtlArguments(output_dir="out", use_cpu=True)
    both = {"merge_asr": "a", "merge_emotion": "b"}
    for given, stage, said in (
        ({"merge_asr": "a"}, Stage1(tasks=["emotion"]), "name both"),
        ({"merge": "half"}, Stage1(tasks=["emotion"]), "does nothing without --merge_asr and --merge_emotion"),
        (both, Stage1(), "work in stage 1 with --tasks emotion"),
        (both, Stage2(tasks=["emotion"]), "work in stage 1 with --tasks emotion"),
    ):
        with pytest.raises(UserError, match=said):
            deepcopy(ResearchArguments(**given)).settle(stage, args)
