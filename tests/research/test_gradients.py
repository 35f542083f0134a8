"""Pins the gradients' cosines against computations by hand, and gradient surgery against its definitions."""

import json
import math
from functools import partial
from itertools import combinations, combinations_with_replacement

import pytest
import torch
from helpers.encoders import all_tasks_config
from helpers.tiny import run_flags, run_script
from helpers.trainers import N, noise_trainer
from torch import Tensor, nn
from transformers import TrainerControl, TrainerState

from modeling_ser_mtl import SerMtlModel, weighted_loss
from ser_mtl.errors import UserError
from ser_mtl.research.arguments import ResearchArguments
from ser_mtl.research.cosines import GradientCosines, cosines_with_itself, gradient_cosines
from ser_mtl.research.gradients import inner_products, shared_parameters
from ser_mtl.research.surgery import GradientSurgery, SurgeryTrainer, projection_onto_cone, weighting_of
from ser_mtl.training.adapters import attach_adapters
from ser_mtl.training.arguments import SerMtlArguments
from ser_mtl.training.stage import Stage1

LOSSES = ["emotion", "gender", "style", "asr", "scl"]


def test_cosines_are_those_computed_by_hand():
    one, two, three = (nn.Parameter(torch.ones(2)) for _ in range(3))
    losses = {  # gradients: [3, 4 | 0, 2], [4, -3 | 0, -1] and [0, 0 | 0, 0]
        "emotion": 3 * one[0] + 4 * one[1] + 2 * two[1],
        "asr": 4 * one[0] - 3 * one[1] - two[1],
        "style": 0 * one.sum(),
    }
    groups = {"layer 1": [one], "layer 2": [two, three]}
    gradients, found, norms = gradient_cosines(losses, groups)
    assert norms["emotion"] == pytest.approx([math.sqrt(29), 5, 2]) and norms["style"] == [0, 0, 0]
    assert found["emotion asr"] == pytest.approx([-2 / math.sqrt(29 * 26), 0.0, -1.0], abs=1e-5)
    assert found["emotion style"] == found["asr style"] == [None] * 3
    other_batch = {"emotion": 5 * one[0], "asr": 4 * one[0] - 3 * one[1] - two[1], "style": one.sum()}
    found = cosines_with_itself(other_batch, gradients, groups)
    assert found["emotion emotion"] == [pytest.approx(3 / math.sqrt(29), abs=1e-5), pytest.approx(0.6), None]
    assert found["asr asr"] == [1, 1, 1] and found["style style"] == [None] * 3


def test_cosines_with_itself_tell_a_conflict_from_noise():
    """Losses with a cosine of -0.5 read -0.04 from noisy gradients; those of the losses with themselves say why."""
    random = torch.Generator().manual_seed(0)
    parameter = nn.Parameter(torch.zeros(4000))
    directions = torch.zeros(2, 4000)
    directions[0, 0], directions[1, :2] = 1, torch.tensor([-0.5, math.sqrt(0.75)])

    def batch() -> dict[str, Tensor]:
        noisy = directions + torch.randn(2, 4000, generator=random) * math.sqrt(11.5 / 4000)
        return {name: gradient @ parameter for name, gradient in zip(("emotion", "asr"), noisy, strict=True)}

    found = []
    for _ in range(200):
        gradients, cosines, _ = gradient_cosines(batch(), {"layer 1": [parameter]})
        found.append(cosines | cosines_with_itself(batch(), gradients, {"layer 1": [parameter]}))
    between, emotion, asr = (sum(one[pair][0] for one in found) / 200 for pair in
                             ("emotion asr", "emotion emotion", "asr asr"))  # fmt: skip
    assert between == pytest.approx(-0.04, abs=0.005)
    assert between / math.sqrt(emotion * asr) == pytest.approx(-0.5, abs=0.06)


def losses_of_update(made) -> dict[str, Tensor]:
    """Each weighted loss of the only update of `corpus_of()`, in one batch."""
    batch = made.data_collator([made.train_dataset[i] for i in range(N)])
    counts = made.get_batch_samples(iter([batch]), 1, made.args.device)[1]
    outputs = made.model.train()(**{name: value for name, value in batch.items() if name != "row"})
    return {name: weighted_loss(made.model.config, {name: loss}, counts) for name, loss in outputs.losses.items()}


def flat_gradients(made, parameters: list[nn.Parameter]) -> dict[str, Tensor]:
    """The gradient of each loss as one vector, by a pass of its own, the plain slow way."""
    vectors = {}
    for name in LOSSES:
        made.model.zero_grad()
        losses_of_update(made)[name].backward()
        vectors[name] = torch.cat([torch.zeros(p.numel()) if p.grad is None else p.grad.flatten() for p in parameters])
    made.model.zero_grad()
    return vectors


def test_the_shared_parameters_are_the_encoders_and_each_comes_once(tmp_path):
    made = noise_trainer(tmp_path)
    groups = shared_parameters(made.model)
    assert list(groups) == ["layer 1", "layer 2", "other"]
    assert {id(p) for group in groups.values() for p in group} == {id(p) for p in made.model.encoder.parameters()}
    assert sum(len(group) for group in groups.values()) == len(list(made.model.encoder.parameters()))


def test_with_adapters_the_shared_parameters_are_those_of_the_layers(tmp_path):
    model = SerMtlModel(all_tasks_config(bottleneck_dim=4, fusion="concat"))
    adapted = attach_adapters(model, str(tmp_path), lora_rank=2, lora_alpha=2)
    own = ("heads.", "ctc_head.", "fusion.")
    trained = {n.removeprefix("base_model.model."): p for n, p in adapted.named_parameters() if p.requires_grad}
    expected = {id(p) for name, p in trained.items() if not name.startswith(own)}
    groups = shared_parameters(adapted)
    assert list(groups) == ["layer 1", "layer 2"]
    assert {id(p) for group in groups.values() for p in group} == expected
    for i, name in enumerate(groups):  # LoRA's pairs on four projections; down and up of the bottleneck, with biases
        assert len(groups[name]) == 4 * 2 + 4
        assert id(trained[f"layer_adapters.{i}.modules_to_save.default.up.weight"]) in {id(p) for p in groups[name]}


def test_the_callback_measures_what_separate_passes_give(tmp_path):
    made = noise_trainer(tmp_path, per_device_train_batch_size=N, ctc_scale="batch")
    groups = shared_parameters(made.model)
    expected, norms = [], []
    for parameters in [[p for group in groups.values() for p in group], *groups.values()]:
        vectors = flat_gradients(made, parameters)
        expected.append([torch.cosine_similarity(vectors[a], vectors[b], dim=0).item() for a, b in pairs()])
        norms.append([vectors[name].norm().item() for name in LOSSES])
    made.add_callback(GradientCosines(tmp_path, made))
    made.train()
    record = json.loads((tmp_path / "gradient_cosines.json").read_text())
    assert record["groups"] == ["encoder", *groups]
    assert record["every_updates"] == 25 * 5
    (measured,) = record["measurements"]
    assert (measured["update"], measured["epoch"]) == (0, 0)
    assert all(measured["cosines"][f"{name} {name}"] == [None] * 4 for name in LOSSES)  # there was one batch
    found = [measured["cosines"].get(f"{a} {b}") or measured["cosines"][f"{b} {a}"] for a, b in pairs()]
    torch.testing.assert_close(torch.tensor(found).T, torch.tensor(expected), atol=2e-3, rtol=0)
    found = torch.tensor([measured["norms"][name] for name in LOSSES]).T  # those of the weighted losses, as trained
    torch.testing.assert_close(found, torch.tensor(norms), rtol=1e-3, atol=1e-5)
    assert 0 < record["seconds"] < record["training_seconds"]
    assert (tmp_path / "gradient_cosines.png").read_bytes().startswith(b"\x89PNG")


def pairs() -> list[tuple[str, str]]:
    return list(combinations(LOSSES, 2))


def test_measuring_changes_nothing_in_the_training(tmp_path, monkeypatch):
    monkeypatch.setattr("ser_mtl.research.cosines.UPDATES_PER_LOSS", 0.4)  # every second update
    trained = []
    for measured in (False, True):
        made = noise_trainer(tmp_path / str(measured), per_device_train_batch_size=2, num_train_epochs=2.0)
        made.model.config.encoder_config.mask_time_prob = 0.3  # so that random numbers count
        if measured:
            made.add_callback(GradientCosines(tmp_path, made))
        made.train()
        trained.append({name: value.clone() for name, value in made.model.state_dict().items()})
    assert all(torch.equal(trained[0][name], trained[1][name]) for name in trained[0])
    record = json.loads((tmp_path / "gradient_cosines.json").read_text())
    assert [m["update"] for m in record["measurements"]] == [0, 2, 4, 6]
    assert [m["epoch"] for m in record["measurements"]] == [0, 0.5, 1, 1.5]
    with_itself = [m["cosines"][f"{name} {name}"][0] for m in record["measurements"] for name in LOSSES]
    with_itself = [cosine for cosine in with_itself if cosine is not None]  # not every batch has every task
    assert len(with_itself) > 10 and max(with_itself) < 0.999  # the next batch is another one


def test_a_loss_is_compared_with_itself_on_the_next_batch(tmp_path):
    # Without a step of the parameters the same batch has the same gradients.
    made = noise_trainer(tmp_path, per_device_train_batch_size=N, num_train_epochs=2.0, learning_rate=0.0)
    made.add_callback(GradientCosines(tmp_path, made))
    made.train()
    (measured,) = json.loads((tmp_path / "gradient_cosines.json").read_text())["measurements"]
    for name in LOSSES:
        assert measured["cosines"][f"{name} {name}"] == pytest.approx([1.0] * 4, abs=1e-3)


def test_a_resumed_run_keeps_what_was_measured_before_its_checkpoint(tmp_path):
    made = noise_trainer(tmp_path)
    saved = {"every_updates": 50, "seconds": 1.0, "training_seconds": 40.0, "groups": ["layer 1"]}
    measurements = [{"update": update, "epoch": 0.0, "cosines": {}} for update in (0, 50, 100, 150)]
    (tmp_path / "gradient_cosines.json").write_text(json.dumps(saved | {"measurements": measurements}))
    callback = GradientCosines(tmp_path, made)
    kept = {"Stopwatch": {"args": {}, "attributes": {"seconds": 40.0}}}
    state = TrainerState(global_step=100, is_world_process_zero=True, stateful_callbacks=kept)
    made.stopwatch.on_train_begin(made.args, state, TrainerControl())
    callback.on_train_begin(made.args, state, TrainerControl(), model=made.model)
    record = callback.record()
    assert record["measurements"] == measurements[:2]  # what came after it is measured again
    assert record["seconds"] == 1.0 and record["training_seconds"] >= 40.0


# ------------------------------------------------------------------------------------------------------------ surgery


def pcgrad(vectors: list[Tensor]) -> Tensor:
    """Algorithm 1 of the paper, on whole vectors."""
    total = torch.zeros_like(vectors[0])
    for i, own in enumerate(vectors):
        projected = own.clone()
        for j in torch.randperm(len(vectors)).tolist():
            if j != i and projected @ vectors[j] < 0:
                projected -= (projected @ vectors[j]) / (vectors[j] @ vectors[j]) * vectors[j]
        total += projected
    return total


@pytest.mark.parametrize("method", ["pcgrad", "upgrad"])
def test_two_conflicting_gradients_lose_the_part_that_conflicts(method):
    one, other = torch.tensor([1.0, 0.0]), torch.tensor([-1.0, 1.0])
    parameter = nn.Parameter(torch.zeros(2))
    surgery = GradientSurgery([parameter], method)
    surgery.collect({"emotion": one @ parameter, "asr": other @ parameter})
    surgery.operate()
    # [1, 0] without its part along [-1, 1] is [0.5, 0.5]; [-1, 1] without its part along [1, 0] is [0, 1].
    torch.testing.assert_close(parameter.grad, torch.tensor([0.5, 1.5]))


@pytest.mark.parametrize("method", ["pcgrad", "upgrad"])
def test_gradients_that_do_not_conflict_are_added(method):
    parameter = nn.Parameter(torch.zeros(2))
    surgery = GradientSurgery([parameter], method)
    surgery.collect({"emotion": 2 * parameter[0], "asr": parameter.sum()})
    surgery.operate()
    assert parameter.grad.tolist() == pytest.approx([3, 1])


@pytest.mark.parametrize("seed", range(5))
def test_many_gradients_are_projected_as_the_algorithm_says(seed):
    vectors = torch.randn(5, 7, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    torch.manual_seed(seed)
    expected = pcgrad(list(vectors))
    torch.manual_seed(seed)
    weights = weighting_of("pcgrad", 5)(inner_products([[v] for v in vectors]).double())
    torch.testing.assert_close(weights @ vectors, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("size", [1.0, 1e-9, 1e6])
def test_upgrad_adds_the_projections_onto_the_directions_without_conflict(size):
    vectors = torch.randn(5, 7, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    vectors *= size * torch.tensor([[1.0], [1e-2], [3.0], [1e2], [0.0]], dtype=torch.float64)
    products = vectors @ vectors.T
    weights = projection_onto_cone(torch.eye(5, dtype=torch.float64), products)
    lengths = vectors.norm(dim=1)
    for u, w in zip(torch.eye(5, dtype=torch.float64), weights, strict=True):
        own, projected = u @ vectors, w @ vectors
        tolerance = 1e-9 * own.norm()
        assert (w - u).min() >= 0  # what is added lies in the cone of the gradients, and
        assert (vectors @ projected >= -tolerance * lengths).all()  # the projection in the dual one: no conflict,
        assert abs((projected - own) @ projected) <= tolerance * own.norm()  # at right angles: it is the nearest point
    torch.testing.assert_close(weighting_of("upgrad", 5)(products), weights.sum(dim=0))


@pytest.mark.parametrize("method", ["pcgrad", "upgrad"])
def test_a_loss_without_gradient_is_left_out_of_it(method):
    for products in ([[1.0, 0.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]):
        assert weighting_of(method, 2)(torch.tensor(products, dtype=torch.float64)).tolist() == [1, 1]


@pytest.mark.parametrize(("per_device", "accumulation"), [(8, 1), (4, 2)])
def test_an_update_projects_the_encoders_gradients_but_not_the_heads(tmp_path, per_device, accumulation):
    flags = {"per_device_train_batch_size": per_device, "gradient_accumulation_steps": accumulation}
    made = noise_trainer(tmp_path, trainer_class=partial(SurgeryTrainer, method="pcgrad"), **flags)
    shared = [p for group in shared_parameters(made.model).values() for p in group]
    vectors = flat_gradients(made, shared)
    torch.manual_seed(3)
    expected = pcgrad([vectors[name] for name in ("emotion", "asr", "gender", "style", "scl")])
    sum(losses_of_update(made).values()).backward()
    heads = {name: p.grad.clone() for name, p in made.model.named_parameters() if name.startswith(("heads", "ctc_"))}
    plain = torch.cat([p.grad.flatten() for p in shared])
    made.model.zero_grad()

    made.create_optimizer_and_scheduler(1)
    batches, counts = made.get_batch_samples(iter(made.get_train_dataloader()), accumulation, made.args.device)
    for i, batch in enumerate(batches):
        made.accelerator.gradient_state._set_sync_gradients(i == accumulation - 1)
        if i == accumulation - 1:
            torch.manual_seed(3)
        made.training_step(made.model, batch, counts)
    found = torch.cat([p.grad.flatten() for p in shared])
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-3)
    assert (expected - plain).norm() > 0.01 * plain.norm()  # there are conflicts
    for name, gradient in heads.items():
        torch.testing.assert_close(made.model.get_parameter(name).grad, gradient, atol=1e-6, rtol=1e-3)


def test_a_stage_with_adapters_is_operated_on_and_measured(good_corpus, finished, tmp_path):
    flags = run_flags(good_corpus, tmp_path / "out", stage1=finished, gradient_surgery="upgrad")
    ended = run_script("run_stage2", [*flags, "--gradient_cosines"])
    assert ended.code == 0, ended.stderr
    record = json.loads((tmp_path / "out/gradient_cosines.json").read_text())
    assert record["groups"] == ["encoder", "layer 1", "layer 2"]  # nothing else of the encoder is trained
    assert set(record["measurements"][0]["cosines"]) == {f"{a} {b}" for a, b in combinations_with_replacement(
        ("emotion", "gender", "style", "scl"), 2
    )}  # fmt: skip
    assert "Gradient cosines: measured once," in ended.stdout


def test_without_torchjd_surgery_names_what_to_install(monkeypatch):
    monkeypatch.setattr("ser_mtl.research.arguments.find_spec", lambda name: None)
    with pytest.raises(UserError, match='--gradient_surgery upgrad: needs the extra "research"; pip install torchjd'):
        ResearchArguments(gradient_surgery="upgrad").settle(Stage1(), SerMtlArguments(output_dir="out", use_cpu=True))


def test_several_processes_are_refused(monkeypatch):
    args = SerMtlArguments(output_dir="out", use_cpu=True)
    monkeypatch.setattr(SerMtlArguments, "world_size", 2)
    with pytest.raises(UserError, match="--gradient_surgery pcgrad: needs a single process"):
        ResearchArguments(gradient_surgery="pcgrad").settle(Stage1(), args)
