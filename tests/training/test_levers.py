"""What helps on a small corpus: heads on the average of the layers, a linear probe first, a learning rate a layer."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.tiny import check_refused, run_flags, run_script
from safetensors.torch import load_file
from sklearn.linear_model import LogisticRegression
from transformers import AutoConfig

from modeling_ser_mtl import SerMtlConfig, SerMtlModel, TaskHead, layer_statistics
from ser_mtl.evaluation.line import classifier
from ser_mtl.training import probe
from ser_mtl.training.layer_rates import layer_factors
from ser_mtl.training.line import pooled_parts
from ser_mtl.training.probe import set_head


def model_of(encoder, **settings) -> SerMtlModel:

    config = SerMtlConfig(
        encoder_config=AutoConfig.from_pretrained(encoder), labels={"emotion": ["a", "b"]}, **settings
    )
    torch.manual_seed(0)
    return SerMtlModel(config).eval()


# ---------------------------------------------------------------------------------------------------------- the probe


@pytest.mark.parametrize("classes", [2, 4])
def test_a_head_set_to_a_classifier_gives_its_logits(classes):
    random = np.random.default_rng(0)
    known = [name for name in "abcd"[:classes]]
    x, y = random.normal(size=(40, 5)), np.array(known)[np.arange(40) % classes]
    fitted = LogisticRegression().fit(x, y)
    weight, bias = probe._by_class(fitted.coef_, fitted.intercept_, fitted.classes_, ["absent", *known])
    head = TaskHead(SerMtlConfig(embedding_dim=8), 5, classes + 1).eval()
    set_head(head, weight, bias)
    frames = torch.tensor(x, dtype=torch.float32)[:, None].expand(-1, 3, -1)
    logits = head(frames, torch.ones(40, 3, dtype=torch.bool))[1].detach()
    np.testing.assert_allclose(logits[:, 1:].softmax(dim=1).numpy(), fitted.predict_proba(x), atol=1e-5)
    assert (logits.argmax(dim=1) > 0).all()  # what train does not have is the answer to nothing


@pytest.mark.parametrize(
    "flags",
    [{}, {"layer_weights": True, "trainable": "adapters"}, {"layer_statistics": True, "augment": "speed"}],
    ids=str,
)
def test_training_begins_at_the_probe(tmp_path, good_corpus, encoder, flags):
    """With a learning rate of nothing it stays there: the answers are those of scikit-learn."""
    heads_see = probe._training_set
    seen: list = []

    def training_set(trainer):
        seen.extend((heads_see(trainer), pooled_parts(trainer, probe.seen_by_heads)["test"]))
        return seen[0]

    flags = {"probe_start": True, "learning_rate": 1e-30, "selection": "last", "num_train_epochs": 1} | flags
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(probe, "_training_set", training_set)
        ended = run_script("run_stage1", run_flags(good_corpus, tmp_path / "run", encoder=encoder, **flags))
    assert ended.code == 0, ended.stderr
    train, test = seen
    assert len(train.emotions) == (4 if "augment" in flags else 1) * 24  # as they are, and three times changed
    predicted = classifier(train, 0, probe.STRENGTH).predict(test.layers[:, 0])
    rows = [json.loads(line) for line in (tmp_path / "run/predictions.jsonl").read_text().splitlines()]
    answers = [(f"speaker {row['speaker']}", row["emotion"]["label"], row["emotion"]["predicted"]) for row in rows]
    assert sorted(answers) == sorted(zip(test.groups, test.emotions, predicted, strict=True))
    assert len(set(predicted)) == 2


def test_a_probe_that_has_no_room_or_no_use_is_refused(tmp_path, good_corpus, encoder):
    flags = {"encoder": encoder, "probe_start": True}
    check_refused("run_stage1", run_flags(good_corpus, tmp_path / "a", **flags, embedding_dim=1), "--embedding_dim")
    check_refused("run_stage1", run_flags(good_corpus, tmp_path / "b", **flags, trainable="heads"), "--probe_start")


# ------------------------------------------------------------------------------------------- other views of the layers


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_statistics_are_those_of_the_real_frames_of_each_layer(dtype):
    outputs = [4 + 3 * torch.randn(2, 6, 8, generator=torch.Generator().manual_seed(seed)).to(dtype) for seed in (0, 1)]
    seen = layer_statistics((*outputs,), torch.arange(6) < torch.tensor([[6], [4]]))
    assert seen.shape == (2, 1, 32) and seen.dtype == dtype
    for one, frames in enumerate((6, 4)):
        normed = [(out[one, :frames].double() - out[one, :frames].double().mean(1, keepdim=True)) for out in outputs]
        normed = [out / (out.square().mean(1, keepdim=True) + 1e-5).sqrt() for out in normed]
        expected = torch.cat([out.mean(0) for out in normed] + [out.std(0, correction=0) for out in normed])
        torch.testing.assert_close(
            seen[one, 0].double(), expected, atol=1e-4 if dtype is torch.float32 else 0.02, rtol=0
        )


def test_heads_on_statistics_go_through_both_stages(tmp_path, good_corpus, encoder):
    first, second = tmp_path / "stage1", tmp_path / "stage2"
    flags = {"encoder": encoder, "layer_statistics": True, "tasks": ["emotion"]}
    ended = run_script("run_stage1", run_flags(good_corpus, first, **flags))
    assert ended.code == 0, ended.stderr
    weights = load_file(first / "model.safetensors")
    assert (
        weights["heads.emotion.projection.weight"].shape[1]
        == 2 * 3 * weights["encoder.encoder.layer_norm.weight"].shape[0]
    )
    flags = {"stage1": first, "learning_rate": 1e-30, "scl": "none", "selection": "last"}
    ended = run_script("run_stage2", run_flags(good_corpus, second, **flags))
    assert ended.code == 0, ended.stderr
    assert answers(second) == answers(first)
    flags = {"encoder": encoder, "layer_statistics": True}
    for other in ({"layer_weights": True}, {"trainable": "heads"}):
        check_refused("run_stage1", run_flags(good_corpus, tmp_path / "run", **flags, **other), "--layer_statistics")


def test_the_average_goes_through_both_stages(tmp_path, good_corpus, encoder):
    first, second = tmp_path / "stage1", tmp_path / "stage2"
    ended = run_script("run_stage1", run_flags(good_corpus, first, encoder=encoder, layer_weights=True))
    assert ended.code == 0, ended.stderr
    config = SerMtlConfig.from_pretrained(first)
    assert config.layer_weights and not config.frame_heads
    before, after = load_file(encoder / "model.safetensors"), load_file(first / "model.safetensors")
    norm = "encoder.layer_norm.weight"  # after the last layer: the average does not see it, so it has no gradient
    assert torch.equal(after[f"encoder.{norm}"], before[norm])
    assert not torch.equal(after["layer_weights.weights"], torch.zeros(3))
    flags = {"stage1": first, "layer_weights": False}
    check_refused("run_stage2", run_flags(good_corpus, second, **flags), "--layer_weights False", "must be True")
    flags = {"stage1": first, "learning_rate": 1e-30, "scl": "none", "selection": "last"}
    ended = run_script("run_stage2", run_flags(good_corpus, second, **flags))
    assert ended.code == 0, ended.stderr
    assert answers(second) == answers(first)  # step 0 of stage 2 is stage 1


def answers(run: Path) -> dict[str, str]:
    rows = [json.loads(line) for line in (run / "predictions.jsonl").read_text().splitlines()]
    return {row["id"]: row["emotion"]["predicted"] for row in rows}


def test_a_model_of_a_version_without_frame_heads_has_them_with_the_average(encoder):
    old = SerMtlConfig(encoder_config=model_of(encoder).config.encoder_config, layer_weights=True).to_dict()
    del old["frame_heads"]
    assert SerMtlConfig(**old).frame_heads and not SerMtlConfig(**old | {"layer_weights": False}).frame_heads


# ------------------------------------------------------------------------------------------------ a rate for each layer


def test_each_layer_has_a_share_of_the_rate_of_the_one_above(encoder):
    model = model_of(encoder, bottleneck_dim=4)
    factors = layer_factors(model, 0.5)
    names = {name: factors.get(id(parameter), 1.0) for name, parameter in model.named_parameters()}
    assert (
        names["heads.emotion.classifier.weight"] == 1 and names["encoder.encoder.layers.1.attention.q_proj.weight"] == 1
    )
    assert names["encoder.encoder.layers.0.attention.q_proj.weight"] == names["layer_adapters.0.up.weight"] == 0.5
    assert names["encoder.feature_projection.projection.weight"] == 0.25
    assert layer_factors(model, 1.0) == {}


# --------------------------------------------------------------------------------------------------- enough updates


@pytest.mark.parametrize(("epochs", "updates", "trained"), [(1, 0, 1), (1, 3, 1), (1, 4, 2), (2, 4, 2)])
def test_there_are_at_least_so_many_updates_in_whole_epochs(tmp_path, good_corpus, encoder, epochs, updates, trained):
    """An epoch is three updates, of 24 utterances."""
    flags = {"num_train_epochs": epochs, "min_updates": updates, "tasks": ["emotion"]}
    ended = run_script("run_stage1", run_flags(good_corpus, tmp_path / "run", encoder=encoder, **flags))
    assert ended.code == 0, ended.stderr
    history = json.loads((tmp_path / "run/history.json").read_text())
    assert [entry["epoch"] for entry in history if "loss" in entry] == list(range(1, trained + 1))


def test_utterances_joined_for_their_words_take_no_update_from_emotion(tmp_path, good_corpus, encoder):
    """Half of the utterances have an emotion: three updates count as one and a half."""
    corpus = shutil.copytree(good_corpus, tmp_path / "corpus")
    rows = pd.read_csv(corpus / "metadata.csv")
    rows.loc[rows["style"] == "scripted", "emotion"] = None
    rows.to_csv(corpus / "metadata.csv", index=False)
    flags = {"num_train_epochs": 1, "min_updates": 4, "tasks": ["emotion", "asr"]}
    ended = run_script("run_stage1", run_flags(corpus, tmp_path / "run", encoder=encoder, **flags))
    assert ended.code == 0, ended.stderr
    history = json.loads((tmp_path / "run/history.json").read_text())
    assert [entry["epoch"] for entry in history if "loss" in entry] == [1, 2, 3]


def test_two_lengths_of_a_training_contradict_each_other(tmp_path, good_corpus, encoder):
    flags = {"encoder": encoder, "min_updates": 5, "max_steps": 3}
    check_refused("run_stage1", run_flags(good_corpus, tmp_path / "run", **flags), "--min_updates 5", "--max_steps 3")
