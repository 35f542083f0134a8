"""Both stages end to end: what a run leaves, what is frozen, what comes back, and which base an adapter accepts."""

import json
import subprocess
from pathlib import Path

import pytest
import torch
from helpers.tiny import ROOT, TRAVELLING, check_refused, run_flags, run_script
from peft import PeftModel
from safetensors.torch import load_file

from modeling_ser_mtl import SerMtlConfig, SerMtlModel
from ser_mtl.evaluation.predictions import read_predictions, references_and_predictions
from ser_mtl.evaluation.scores import SerMtlMetric, metrics_by_group

FLAGS = (
    "--recipe",
    "paper",
    "--num_train_epochs",
    "2",
    "--warmup_steps",
    "0",
    "--selection",
    "last",
    "--corpus",
    "folder",
    "--fold",
    "1",
    "--use_cpu",
    "--learning_rate",
    "1e-3",
)


@pytest.fixture(scope="module")
def world(good_corpus, encoder, finished, finished2) -> dict[str, Path]:
    """A corpus, an encoder, and a run of both stages with their defaults."""
    return {"corpus": good_corpus, "encoder": encoder, "stage1": finished, "stage2": finished2}


def stage(number: int, paths: dict[str, Path], output: Path, *more: object) -> Path:
    source = ("--encoder", paths["encoder"]) if number == 1 else ()
    argv = [*FLAGS, *source, "--data_dir", paths["corpus"], "--output_dir", output, *more]
    ended = run_script(f"run_stage{number}", argv)
    assert ended.code == 0, ended.stderr
    return output


def noise() -> torch.Tensor:
    return torch.randn(2, 6000, generator=torch.Generator().manual_seed(0))


@torch.inference_mode()
def logits(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    output = model.eval()(noise())
    return dict(output.task_logits) | {name: output[name] for name in ("logits", "asr_logits") if name in output}


def assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_run_leaves_the_files_of_the_contract(world):
    common = {
        "results.json", "predictions.jsonl", "args.json", "split.json", "config.json", "README.md", "vocab.json",
        "processor_config.json", "confusion_matrix.png", "training_curves.png", *TRAVELLING,
    }  # fmt: skip
    for name, weights in (
        ("stage1", {"model.safetensors"}),
        ("stage2", {"adapter_model.safetensors", "adapter_config.json"}),
    ):
        left = {path.name for path in world[name].iterdir()}
        assert common | weights <= left
        assert not any("checkpoint" in file or file.startswith(".partial") or file.endswith(".bin") for file in left)


def test_results_are_a_function_of_the_predictions(world):
    for name in ("stage1", "stage2"):
        results = json.loads((world[name] / "results.json").read_text())
        references, predictions = references_and_predictions(read_predictions(world[name] / "predictions.jsonl"))
        again = metrics_by_group(SerMtlMetric(results["labels"]), predictions, references)
        assert json.loads(json.dumps(again)) == results["test"]
        assert set(results["test"]) == {"all", "improvised", "scripted"}


def test_the_whole_test_fold_is_predicted_and_its_speakers_are_new(world):
    split = json.loads((world["stage1"] / "split.json").read_text())
    predicted = [row["id"] for row in read_predictions(world["stage1"] / "predictions.jsonl")]
    assert sorted(predicted) == split["test"]["ids"]
    speaker = {part: {i.split("_")[0] for i in split[part]["ids"]} for part in ("train", "dev", "test")}
    assert not speaker["test"] & (speaker["train"] | speaker["dev"])


def test_a_stage_two_without_asr_transcribes_as_stage_one_does(world):
    first, second = (
        {row["id"]: row["asr"] for row in read_predictions(world[name] / "predictions.jsonl")}
        for name in ("stage1", "stage2")
    )
    assert first == second
    history = json.loads((world["stage2"] / "history.json").read_text())
    assert not any("eval_asr_wer" in logs for logs in history)  # of the adapted model: noise


def test_where_stage_two_trains_its_own_ctc_head_both_are_reported(world, tmp_path):
    out = stage(2, world, tmp_path / "stage2", "--stage1", world["stage1"], "--tasks", "emotion", "asr", "gender")
    first, second = (json.loads((run / "results.json").read_text())["test"]["all"] for run in (world["stage1"], out))
    assert second["asr_adapters_off"] == first["asr"]
    assert "wer" in second["asr"]


def test_speech_recognition_alone_is_a_stage_one_too(world, tmp_path):
    out = stage(1, world, tmp_path / "asr", "--tasks", "asr")
    assert "points" not in read_predictions(out / "predictions.jsonl")[0]
    assert set(json.loads((out / "results.json").read_text())["test"]["all"]) == {"n", "asr"}


def test_frozen_is_frozen_and_what_is_trained_has_moved(world):
    base, adapter = (
        load_file(world["stage1"] / "model.safetensors"),
        load_file(world["stage2"] / "adapter_model.safetensors"),
    )
    model = SerMtlModel.from_pretrained(world["stage2"])
    after = {name.replace(".base_layer", ""): value for name, value in model.state_dict().items()}
    frozen = {name: value for name, value in base.items() if name.startswith(("encoder.", "ctc_head."))}
    assert frozen
    assert all(torch.equal(after[name], value) for name, value in frozen.items())
    start = SerMtlModel.from_pretrained(world["stage1"]).state_dict()
    for name, value in adapter.items():
        stage1 = start.get(name.removeprefix("base_model.model."))
        moved = (stage1 is None or not torch.equal(value, stage1)) and value.abs().sum() > 0
        assert moved, name


def test_stage_one_leaves_the_front_end_as_it_was_and_moves_all_else(world):
    before = load_file(world["encoder"] / "model.safetensors")
    after = load_file(world["stage1"] / "model.safetensors")
    for name, value in before.items():
        same = torch.equal(after["encoder." + name], value)
        assert same == name.startswith("feature_extractor."), name


@pytest.mark.parametrize("name", ["stage1", "stage2"])
def test_a_run_gives_the_same_logits_in_a_new_process(world, name, python, tmp_path):
    torch.save(logits(SerMtlModel.from_pretrained(world[name])), tmp_path / "expected.pt")
    script = (
        "import sys, torch; sys.path[:0] = sys.argv[1:4]\n"
        "from test_stages import logits, assert_same; from modeling_ser_mtl import SerMtlModel\n"
        "assert_same(logits(SerMtlModel.from_pretrained(sys.argv[4])), torch.load(sys.argv[5]))\n"
    )
    argv = [ROOT, ROOT / "tests", ROOT / "tests/training", world[name], tmp_path / "expected.pt"]
    subprocess.run([python, "-c", script, *map(str, argv)], check=True)


def test_the_loaded_model_gives_the_probabilities_of_the_run(world):
    import soundfile
    from transformers import AutoFeatureExtractor

    for name in ("stage1", "stage2"):
        model = SerMtlModel.from_pretrained(world[name]).eval()
        extractor = AutoFeatureExtractor.from_pretrained(world[name])
        for row in read_predictions(world[name] / "predictions.jsonl")[:3]:
            samples, rate = soundfile.read(world["corpus"] / row["id"], dtype="float32")
            with torch.inference_mode():
                output = model(**extractor(samples, sampling_rate=rate, return_tensors="pt"))
            expected = list(row["emotion"]["probabilities"].values())
            assert output.logits.softmax(dim=-1)[0].tolist() == pytest.approx(expected, abs=1e-4)


def test_peft_loads_the_adapter_onto_a_base_built_with_its_config(world):
    config = SerMtlConfig.from_pretrained(world["stage2"])
    base = SerMtlModel.from_pretrained(world["stage1"], config=config)
    adapted = PeftModel.from_pretrained(base, world["stage2"])
    assert_same(logits(adapted), logits(SerMtlModel.from_pretrained(world["stage2"])))


def test_a_base_without_places_for_the_adapters_is_refused(world):
    with pytest.raises(ValueError, match="no places for the adapters"):
        PeftModel.from_pretrained(SerMtlModel.from_pretrained(world["stage1"]), world["stage2"])


def test_a_base_with_other_weights_is_refused(world):
    config = SerMtlConfig.from_pretrained(world["stage2"])
    other = SerMtlModel.from_pretrained(world["encoder"], config=config)
    with pytest.raises(ValueError, match="another base"):
        PeftModel.from_pretrained(other, world["stage2"])


def test_a_base_in_half_precision_is_accepted(world):
    config = SerMtlConfig.from_pretrained(world["stage2"])
    base = SerMtlModel.from_pretrained(world["stage1"], config=config, dtype=torch.bfloat16)
    PeftModel.from_pretrained(base, world["stage2"])


def test_stage_two_trains_all_parameters_when_told_to(world, tmp_path):
    out = stage(2, world, tmp_path / "all", "--stage1", world["stage1"], "--trainable", "all", "--tasks", "emotion")
    before, after = load_file(world["stage1"] / "model.safetensors"), load_file(out / "model.safetensors")
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert {name for name in before if name.startswith("encoder.encoder.layers.")} <= moved
    assert not any(name.startswith(("ctc_head.", "encoder.feature_extractor.")) for name in moved)


@pytest.fixture(scope="module")
def adapters_in_stage_one(world, tmp_path_factory) -> Path:
    return stage(1, world, tmp_path_factory.mktemp("adapters") / "stage1", "--trainable", "adapters")


def test_stage_one_with_adapters_leaves_the_encoder_alone_and_loads_again(world, adapters_in_stage_one):
    assert not (adapters_in_stage_one / "model.safetensors").exists()
    model = SerMtlModel.from_pretrained(adapters_in_stage_one)
    encoder = load_file(world["encoder"] / "model.safetensors")
    after = {name.replace(".base_layer", ""): value for name, value in model.encoder.state_dict().items()}
    assert all(torch.equal(after[name], value) for name, value in encoder.items())
    assert "asr_logits" in logits(model)
    # Without its adapters this model has an untrained CTC head, whose transcripts say nothing.
    assert "asr_adapters_off" not in json.loads((adapters_in_stage_one / "results.json").read_text())["test"]["all"]


@pytest.mark.parametrize("size", ["embedding_dim", "bottleneck_dim", "lora_rank", "lora_alpha"])
def test_other_sizes_than_those_of_its_adapters_are_refused(world, adapters_in_stage_one, size, tmp_path):
    flags = run_flags(world["corpus"], tmp_path / "out", stage1=adapters_in_stage_one, **{size: 8})
    check_refused("run_stage2", flags, f"--{size} 8", "256" if size == "embedding_dim" else "64")


@pytest.mark.parametrize("trainable", ["adapters", "all"])
def test_stage_two_goes_on_from_a_stage_one_with_adapters(world, adapters_in_stage_one, trainable, tmp_path):
    stage1 = adapters_in_stage_one
    # At a learning rate of nothing, stage 2 must be stage 1.
    still = ("--stage1", stage1, "--trainable", trainable, "--learning_rate", "0")
    out = stage(2, world, tmp_path / "stage2", *still)
    before, after = (logits(SerMtlModel.from_pretrained(folder)) for folder in (stage1, out))
    for name in before:
        torch.testing.assert_close(after[name], before[name], atol=1e-5, rtol=0)
