"""Pins that the model behaves as one of transformers' own: it does what it is asked, and what it saves loads.

Loaded by our own class and through the Auto class, stage 1 and stage 2.
"""

import json
import shutil
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from compatibility import KINDS, difference, outputs
from helpers.encoders import ENCODERS, all_tasks_config
from peft import AutoPeftModel, LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModel, AutoModelForAudioClassification, Trainer, TrainingArguments

from modeling_ser_mtl import SerMtlConfig, SerMtlModel
from ser_mtl.errors import UserError
from ser_mtl.model.base import base_of

FOUR, FIVE = ["w", "x", "y", "z"], ["a", "b", "c", "d", "e"]
FORMAT_1 = Path(__file__).parent / "format1"


@pytest.fixture(params=["our class", "Auto class"])
def load(request):
    """`from_pretrained`."""
    if request.param == "our class":
        return SerMtlModel.from_pretrained
    return lambda name, **more: AutoModelForAudioClassification.from_pretrained(name, trust_remote_code=True, **more)


STAGES = pytest.mark.parametrize("kind", ["stage 1", "stage 2"])

# ------------------------------------------------------------------------------------------------------------- values


def calibrated(model):
    return model.eval()(torch.randn(2, 6000, generator=torch.Generator().manual_seed(0))).logits


@STAGES
def test_values_of_the_config_are_applied_or_refused(folders, load, kind):
    assert load(folders[kind], temperature=2.5, scl_weight=3.0).config.scl_weight == 3.0
    hot = load(folders[kind], temperature=2.5)
    plain = load(folders[kind])
    assert hot.config.temperature == 2.5 != plain.config.temperature
    torch.testing.assert_close(*(calibrated(model) * model.config.temperature for model in (hot, plain)))
    for wrong in ({"temperature": 0.0}, {"scl": "Norm"}):
        with pytest.raises(ValueError, match=f"^{next(iter(wrong))} "):
            load(folders[kind], **wrong)


# ------------------------------------------------------------------------------------------------------------- labels


@STAGES
@pytest.mark.parametrize(
    "asked",
    [
        {"id2label": dict(enumerate(FIVE))},
        {"label2id": {label: i for i, label in enumerate(FIVE)}},
        {"labels": {"emotion": FIVE}},
        {"num_labels": 5, "id2label": dict(enumerate(FIVE)), "label2id": {label: i for i, label in enumerate(FIVE)}},
    ],
)
def test_new_labels_under_any_name_give_a_new_classifier(folders, load, kind, asked):
    model = load(folders[kind], ignore_mismatched_sizes=True, **asked)
    assert model.config.labels["emotion"] == [*model.config.id2label.values()] == [*model.config.label2id] == FIVE
    assert (model.config.num_labels, outputs(model)[0].shape) == (5, (2, 5))


@STAGES
def test_a_number_of_labels_alone_gives_them_plain_names(folders, load, kind):
    model = load(folders[kind], ignore_mismatched_sizes=True, num_labels=5)
    assert model.config.labels["emotion"] == [f"LABEL_{i}" for i in range(5)]
    assert load(folders[kind], num_labels=4).config.labels == all_tasks_config().labels


@STAGES
def test_other_labels_of_the_same_number_do_not_get_the_trained_classifier(folders, load, kind):
    asked = {"id2label": dict(enumerate(FOUR))}
    with pytest.raises(ValueError, match=r"was trained on .*angry"):
        load(folders[kind], **asked)
    assert difference(outputs(load(folders[kind], ignore_mismatched_sizes=True, **asked)), outputs(load(folders[kind])))


@pytest.mark.parametrize("asked", [{"id2label": {1: "a", 2: "b"}}, {"label2id": {"a": 0, "b": 0}}])
def test_numbers_of_labels_that_skip_or_repeat_one_are_refused(folders, load, asked):
    with pytest.raises(ValueError, match="each once"):
        load(folders["stage 1"], ignore_mismatched_sizes=True, **asked)


def test_other_labels_of_any_task_are_refused_or_new(folders, load):
    with pytest.raises(ValueError, match=r"labels of gender: \['x', 'y'\]"):
        load(folders["stage 2"], labels={"gender": ["x", "y"]})
    model = load(folders["stage 2"], labels={"gender": ["x", "y", "z"]}, ignore_mismatched_sizes=True)
    assert outputs(model)[1].shape == (2, 3)
    config = SerMtlConfig.from_pretrained(folders["stage 2"])
    config.id2label = dict(enumerate(FOUR))
    with pytest.raises(ValueError, match="disagree"):
        load(folders["stage 2"], config=config)


def test_labels_that_disagree_are_refused(folders):
    for values in ({"labels": {"emotion": FOUR}, "num_labels": 5}, {"labels": {"emotion": FOUR}, "id2label": {0: "a"}}):
        with pytest.raises(ValueError, match="disagree"):
            SerMtlConfig(**values)
    with pytest.raises(ValueError, match=r"^labels "):
        SerMtlModel.from_pretrained(folders["stage 1"], labels=FOUR)
    assert SerMtlModel.from_pretrained(folders["stage 1"], id2label=None).config.num_labels == 4
    with pytest.raises(ValueError, match="disagree"):
        SerMtlModel.from_pretrained(folders["stage 1"], labels={"emotion": FOUR}, id2label=dict(enumerate(FIVE)))
    config = all_tasks_config()
    config.num_labels = 5
    with pytest.raises(ValueError, match="disagree"):
        SerMtlModel(config)


def test_a_config_takes_labels_under_transformers_names():
    assert SerMtlConfig(id2label={"1": "b", "0": "a"}).labels == {"emotion": ["a", "b"]}
    assert SerMtlConfig(num_labels=2).labels == {"emotion": ["LABEL_0", "LABEL_1"]}
    assert SerMtlConfig(labels={"emotion": FIVE}).num_labels == 5


# ---------------------------------------------------------------------------------------------------------- arguments


@STAGES
def test_what_is_asked_of_from_pretrained_is_done(folders, load, kind):
    model = load(folders[kind], attn_implementation="eager", output_hidden_states=True)
    assert model.encoder.config._attn_implementation == "eager"
    assert len(model(torch.randn(1, 6000)).hidden_states) == 3
    assert load(folders[kind], dtype=torch.bfloat16).dtype == torch.bfloat16
    assert not any(load(folders[kind], output_loading_info=True)[1].values())
    assert isinstance(load(folders[kind], return_dict=False)(torch.randn(1, 6000)), tuple)
    with pytest.raises(TypeError, match="dtipe"):
        load(folders[kind], dtipe=torch.bfloat16)


@STAGES
def test_a_model_in_a_subfolder_loads(folders, load, kind):
    assert (
        difference(outputs(load(folders[kind].parent, subfolder=folders[kind].name)), outputs(load(folders[kind]))) == 0
    )


def test_a_state_dict_in_the_place_of_a_file(folders):
    model = SerMtlModel.from_pretrained(folders["stage 1"])
    again = SerMtlModel.from_pretrained(None, config=model.config, state_dict=model.state_dict())
    assert difference(outputs(again), outputs(model)) == 0


def test_a_stock_encoder_loads_as_it_is_asked_to(tmp_path):
    AutoModel.from_config(ENCODERS["wav2vec2, layer norm"]).save_pretrained(tmp_path)
    arguments = {"config": all_tasks_config(), "dtype": "bfloat16", "attn_implementation": "eager"}
    model, info = SerMtlModel.from_pretrained(tmp_path, output_loading_info=True, **arguments)
    assert (model.dtype, model.encoder.config._attn_implementation) == (torch.bfloat16, "eager")
    assert "heads.emotion.classifier.weight" in info["missing_keys"]
    assert not any(name.startswith("encoder.") for name in info["missing_keys"])
    with pytest.raises(TypeError, match="dtipe"):
        SerMtlModel.from_pretrained(tmp_path, config=all_tasks_config(), dtipe="bfloat16")


def test_outputs_follow_argument_and_config(folders):
    model, noise = SerMtlModel.from_pretrained(folders["stage 1"]).eval(), torch.randn(1, 6000)
    assert model(noise).hidden_states is None
    assert isinstance(model(noise, return_dict=False), tuple)
    model.config.output_hidden_states, model.config.return_dict = True, False
    assert isinstance(model(noise), tuple)
    assert len(model(noise, return_dict=True).hidden_states) == 3
    assert model(noise, return_dict=True, output_hidden_states=False).hidden_states is None


# ------------------------------------------------------------------------------------------------- adapters of a user


def test_a_users_own_lora_loads_back_by_peft_and_by_name(folders, load, tmp_path):
    model = get_peft_model(
        SerMtlModel.from_pretrained(folders["stage 1"]),
        LoraConfig(r=2, target_modules=["q_proj", "v_proj"], modules_to_save=["heads.emotion"]),
    )
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data.normal_(std=0.1)
    model.save_pretrained(tmp_path)
    assert difference(outputs(PeftModel.from_pretrained(load(folders["stage 1"]), tmp_path)), outputs(model)) == 0
    assert difference(outputs(load(tmp_path)), outputs(model)) == 0


def test_adapters_that_were_switched_off_come_back_whole(folders):
    model = SerMtlModel.from_pretrained(folders["stage 2"])
    before = outputs(model)
    model.disable_adapters()
    assert difference(outputs(model), before) > 0
    model.enable_adapters()
    assert difference(outputs(model), before) == 0


# -------------------------------------------------------------------------------------------- saving and training on


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_loaded_saves_and_loads_bitwise_the_same(folders, load, kind, tmp_path):
    model = load(folders[kind])
    model.save_pretrained(tmp_path)
    assert (tmp_path / "config.json").is_file()
    assert difference(outputs(load(tmp_path)), outputs(model)) == 0


@STAGES
def test_a_whole_state_dict_goes_back_into_a_copy(folders, kind):
    model = SerMtlModel.from_pretrained(folders[kind])
    copied = deepcopy(model)
    with torch.no_grad():
        for parameter in copied.parameters():
            parameter.zero_()
    copied.load_state_dict(model.state_dict())  # as Lightning, FSDP and averages of weights do
    assert difference(outputs(copied), outputs(model)) == 0


@STAGES
def test_what_was_loaded_is_pushed_whole(hub, folders, load, kind, tmp_path):
    model = load(folders[kind])
    model.save_pretrained(tmp_path, push_to_hub=True, repo_id="ada/pushed")
    assert difference(outputs(load("ada/pushed")), outputs(model)) == 0
    assert difference(outputs(load(tmp_path)), outputs(model)) == 0


def test_adapters_with_labels_that_their_base_lacks_load_from_a_hub(hub, folders, load):
    """There, an Auto class starts from the config of the base."""
    SerMtlModel.from_pretrained(folders["stage 1"]).push_to_hub("ada/base")
    config = SerMtlConfig.from_pretrained(folders["stage 2"], id2label=dict(enumerate(FIVE)))
    model = SerMtlModel.from_pretrained(folders["stage 2"], config=config, ignore_mismatched_sizes=True)
    (adapter,) = model.peft_config.values()
    adapter.base_model_name_or_path = "ada/base"
    model.push_to_hub("ada/adapters")
    again = load("ada/adapters")
    assert again.config.labels["emotion"] == FIVE
    assert difference(outputs(again), outputs(model)) == 0
    with pytest.raises(ValueError, match="was trained on"):
        load("ada/adapters", id2label=dict(enumerate(reversed(FIVE))))


def test_auto_peft_model_says_what_to_use(folders):
    with pytest.raises(ValueError, match="use AutoModelForAudioClassification of transformers"):
        AutoPeftModel.from_pretrained(folders["stage 2"], trust_remote_code=True)


def test_a_folder_without_a_model_of_this_kind_is_named(tmp_path):
    AutoModel.from_config(ENCODERS["HuBERT"]).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=f"^{tmp_path}: has no config.json of such a model"):
        SerMtlModel.from_pretrained(tmp_path)


def test_loaded_adapters_train_on_with_the_stock_trainer(folders, load, tmp_path):
    assert not any(p.requires_grad for p in load(folders["stage 2"]).parameters())
    model = load(folders["stage 2"], is_trainable=True)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained and all("lora_" in name or "modules_to_save" in name for name in trained)
    before = outputs(model)
    rows = [{"input_values": torch.randn(3000), "labels": i % 4} for i in range(4)]
    arguments = TrainingArguments(str(tmp_path), max_steps=1, learning_rate=0.01, use_cpu=True, report_to="none")
    Trainer(model, arguments, train_dataset=rows).train()
    after = outputs(model)
    assert difference(after, before) > 0
    assert difference(outputs(load(tmp_path / "checkpoint-1")), after) == 0


# ------------------------------------------------------------------------------------------------------------- format


@pytest.mark.parametrize("stage", ["stage1", "stage2"])
def test_files_of_version_0_1_give_the_logits_of_then(stage):
    """Written by the code of then. The base that the adapters name is gone; it lies beside them, as before."""
    model = SerMtlModel.from_pretrained(FORMAT_1 / stage, base=base_of(FORMAT_1 / stage)).eval()
    tones = torch.sin(torch.arange(6000).view(2, 3000) * 0.05)
    with torch.inference_mode():
        then = load_file(FORMAT_1 / "logits.safetensors")[stage]
        torch.testing.assert_close(model(tones).task_logits["emotion"], then)
    assert stage == "stage2" or model.config.temperature == 1.7


@STAGES
def test_a_newer_format_is_refused_in_one_line(folders, load, kind, tmp_path):
    newer = shutil.copytree(folders[kind], tmp_path / "newer")
    config = json.loads((newer / "config.json").read_text())
    (newer / "config.json").write_text(json.dumps(config | {"format": config["format"] + 1}))
    with pytest.raises(ValueError, match=r"^the model has format \d+, .* take a newer one.*$"):
        load(newer)


# -------------------------------------------------------------------------------------------------------------- moved


@pytest.mark.parametrize("layout", [("stage1/fold1", "stage2/fold1"), ("s1", "s2"), ("a/b/s1", "s2")])
def test_a_base_that_moved_with_its_adapters_is_found(tmp_path, layout):
    first, second = (tmp_path / "now" / name for name in layout)
    for folder in (first, second):
        folder.mkdir(parents=True)
    (first / "config.json").write_text("{}")
    adapter = {"base_model_name_or_path": str(tmp_path / "then" / layout[0])}
    (second / "adapter_config.json").write_text(json.dumps(adapter))
    assert base_of(second) == str(first)
    (first / "config.json").unlink()
    with pytest.raises(UserError, match="--base"):
        base_of(second)
    assert base_of(second, "me/elsewhere") == "me/elsewhere"
