"""Pins that a loaded model does what transformers, PEFT and torch do with one: offload, adapt, checkpoint, train.

In threads and in half precision too.
"""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from compatibility import difference, outputs
from helpers.encoders import ENCODERS, all_tasks_config
from peft import LoraConfig
from torch import Tensor
from transformers import Trainer, TrainingArguments, Wav2Vec2Config, Wav2Vec2ForSequenceClassification, set_seed

from modeling_ser_mtl import SerMtlConfig, SerMtlModel

load = SerMtlModel.from_pretrained


def test_a_config_may_be_named_by_its_path(folders):
    adapted = folders["stage 2"]
    assert difference(outputs(load(adapted, config=str(adapted / "config.json"))), outputs(load(adapted))) == 0


@pytest.mark.parametrize("places", [{"": "disk"}, {"encoder": "cpu", "heads": "disk", "ctc_head": "disk"}])
def test_adapters_answer_from_the_disk(folders, places, tmp_path):
    others = {} if "" in places else dict.fromkeys(("fusion", "layer_adapters", "fingerprint"), "cpu")
    model = load(folders["stage 2"], device_map=places | others, offload_folder=str(tmp_path))
    assert any(parameter.is_meta for parameter in model.parameters())
    assert difference(outputs(model), outputs(load(folders["stage 2"]))) == 0


@pytest.mark.parametrize("encoder", ["wav2vec2, group norm", "Moonshine"])
def test_a_front_end_that_is_called_in_parts_answers_from_the_disk(encoder, tmp_path):
    model = SerMtlModel(all_tasks_config(encoder))
    model.save_pretrained(tmp_path / "model")
    offloaded = load(tmp_path / "model", device_map={"": "disk"}, offload_folder=str(tmp_path / "offloaded"))
    assert difference(outputs(offloaded), outputs(model)) == 0


def test_attentions_are_those_of_the_thread_that_asked(folders):
    model = load(folders["stage 1"], attn_implementation="eager").eval()
    noise, counts = torch.randn(1, 6000), []

    def ask(more: int) -> None:
        with torch.inference_mode():
            counts.extend(len(model(noise, output_attentions=True).attentions) for _ in range(20))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(ask, range(4)))
    assert {*counts} == {2}


@pytest.mark.parametrize("base", ["the right one", "without places", "with other weights"])
def test_load_adapter_of_transformers_takes_the_right_base_alone(folders, base):
    config = None if base == "without places" else SerMtlConfig.from_pretrained(folders["stage 2"])
    model = load(folders["stage 1"], config=config)
    if base == "the right one":
        model.load_adapter(str(folders["stage 2"]))
        assert difference(outputs(model), outputs(load(folders["stage 2"]))) == 0
        return
    if base == "with other weights":
        torch.nn.init.normal_(model.encoder.feature_projection.projection.weight)
    with pytest.raises(ValueError, match=r"no places|another base"):
        model.load_adapter(str(folders["stage 2"]))


@pytest.mark.parametrize(("saved", "asked"), [(torch.bfloat16, torch.float32), (torch.float16, torch.bfloat16)])
def test_adapters_saved_in_half_precision_load_in_any(folders, tmp_path, saved, asked):
    load(folders["stage 2"], dtype=saved).save_pretrained(tmp_path)
    assert load(tmp_path, dtype=asked).dtype == asked
    base = load(folders["stage 1"])
    base.encoder.feature_projection.projection.weight.data.mul_(1.1)
    base.save_pretrained(tmp_path / "base")
    with pytest.raises(ValueError, match="another base"):
        load(tmp_path, base=str(tmp_path / "base"), dtype=asked)


def test_only_the_main_process_saves_adapters(folders, tmp_path):
    load(folders["stage 2"]).save_pretrained(tmp_path / "saved", is_main_process=False)
    assert not (tmp_path / "saved").exists()


@pytest.mark.parametrize("encoder", ["HuBERT", "WavLM", "Moonshine"])
def test_re_entrant_checkpoints_leave_the_gradients_of_adapters(encoder):
    """With transformers 4 these are the default; in WavLM of transformers itself they recompute without end."""
    model = SerMtlModel(all_tasks_config(encoder, bottleneck_dim=4)).train()
    model.add_adapter(LoraConfig(r=2, target_modules=SerMtlModel.adapted_modules, init_lora_weights=False))
    gradients = []
    for reentrant in (None, True):
        if reentrant:
            model.activation_checkpointing_enable({"use_reentrant": True})
        model.zero_grad()
        set_seed(0)
        model(torch.ones(1, 6000), labels=torch.tensor([0])).loss.backward()
        gradients.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys() and any("lora_" in name for name in gradients[0])
    assert difference([*gradients[0].values()], [*gradients[1].values()]) < 1e-5


@pytest.mark.parametrize("norm", ["layer", "group"])
def test_checkpoints_save_as_much_memory_as_those_of_the_stock_model(norm):
    """In a front end that is trained."""
    encoder = ENCODERS[f"wav2vec2, {norm} norm"].to_dict() | {"mask_time_prob": 0.0}
    kept = []
    for model in (Wav2Vec2ForSequenceClassification(Wav2Vec2Config(**encoder)), SerMtlModel(one_task(encoder))):
        model.train().activation_checkpointing_enable()
        kept.append(kept_for_backward(model))
    assert kept[1] < 1.1 * kept[0]


def one_task(encoder: dict) -> SerMtlConfig:
    return SerMtlConfig(encoder_config=encoder, tasks=["emotion"], embedding_dim=16)


def kept_for_backward(model) -> int:
    """Bytes that a training step keeps beside the parameters."""
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = 0 if storage.data_ptr() in own else storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        model(torch.randn(2, 16_000), labels=torch.tensor([0, 1]))
    return sum(kept.values())


def test_the_stock_trainer_measures_what_it_is_asked_for(folders, tmp_path):
    """It takes every argument of `forward` whose name has "label" in it for one that it must have."""
    rows = [{"input_values": torch.randn(3000), "labels": i % 4} for i in range(4)]
    arguments = TrainingArguments(str(tmp_path), use_cpu=True, report_to="none")
    model = load(folders["stage 1"])
    metrics = Trainer(model, arguments, compute_metrics=lambda answers: {"own": len(answers.label_ids)})
    assert metrics.evaluate(rows)["eval_own"] == 4
