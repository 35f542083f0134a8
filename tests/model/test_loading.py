"""Pins that what was published loads anywhere: by name alone, in a process and a folder without this project's code."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from helpers.tiny import OWN, SAMPLING_RATE, contents, run_flags, run_script, tone
from huggingface_hub import HfApi, ModelCard, hf_hub_download
from safetensors.torch import load_file, save_file

import ser_mtl
from modeling_ser_mtl import SerMtlConfig, SerMtlModel

SHORT = 3000  # samples of the second utterance that are not padding

# Runs in a process without our code. `outputs` is what it says of two noises, the second one padded.
PREAMBLE = (
    f"import sys\nsys.modules.update(dict.fromkeys({OWN}))  # as if it were not installed"
    + """
import importlib.util, torch
from transformers import AutoConfig, AutoModelForAudioClassification, pipeline
assert importlib.util.find_spec("modeling_ser_mtl") is None
noise = torch.randn(2, 6000, generator=torch.Generator().manual_seed(0))
def outputs(model):
    with torch.inference_mode():
        output = model.eval()(noise)
    return dict(output.task_logits) | {name: output[name] for name in ("logits", "asr_logits") if name in output}
def auto(name, **more):
    return AutoModelForAudioClassification.from_pretrained(name, trust_remote_code=True, **more)
"""
)


# Of several rates, numbers of channels and forms.
RECORDINGS = """
import numpy as np
both = np.stack([noise[0].numpy(), noise[1].numpy()]).clip(-1, 1)
recordings = ["a.wav", (both, 48_000), {"raw": both[0], "sampling_rate": 8000}]
"""


def write_recordings(folder: Path) -> None:
    soundfile.write(folder / "a.wav", np.stack([tone(440, 0.5, 44_100), tone(660, 0.5, 44_100)], axis=1), 44_100)


@torch.inference_mode()
def outputs(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    output = model.eval()(torch.randn(2, 6000, generator=torch.Generator().manual_seed(0)))
    return dict(output.task_logits) | {name: output[name] for name in ("logits", "asr_logits") if name in output}


def assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor], tolerance: float = 0) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        torch.testing.assert_close(value, other[name], atol=tolerance, rtol=0)


def run_elsewhere(python: str, code: str, folder: Path, **environment: str) -> subprocess.CompletedProcess:
    """Run a program in `folder`, in a process of its own that finds nothing of this project."""
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [python, "-c", code]
    ended = subprocess.run(command, cwd=folder, env=inherited | environment, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr[-3000:]
    return ended


@pytest.fixture(scope="module")
def elsewhere(python) -> Callable[..., subprocess.CompletedProcess]:
    return partial(run_elsewhere, python)


def publish(run: Path, repo_id: str, *more: object) -> None:
    ended = run_script("publish", [run, "--repo_id", repo_id, *more])
    assert ended.code == 0, ended.stderr


@pytest.fixture(scope="module")
def runs(hub_server, good_corpus, encoder, finished, finished2, tmp_path_factory) -> dict[str, Path]:
    """The runs that are published as ada/stage1, ada/stage2 (and ada/stage2-merged) and ada/adapters1."""
    hub_server.clear()
    root = tmp_path_factory.mktemp("loading")
    runs = {name: shutil.copytree(run, root / name) for name, run in (("stage1", finished), ("stage2", finished2))}
    runs["adapters1"] = root / "adapters1"
    flags = run_flags(good_corpus, runs["adapters1"], encoder=encoder, trainable="adapters", learning_rate=1e-3)
    assert run_script("run_stage1", flags).code == 0
    publish(runs["stage1"], "ada/stage1")
    publish(runs["stage2"], "ada/stage2", "--base_repo_id", "ada/stage1", "--merge")
    HfApi().create_repo("ada/encoder")
    HfApi().upload_folder(repo_id="ada/encoder", folder_path=encoder)
    publish(runs["adapters1"], "ada/adapters1", "--base_repo_id", "ada/encoder")
    return runs


@pytest.fixture(scope="module")
def loaded(runs, tmp_path_factory) -> dict:
    """What a process without our code computes with each repository."""
    folder = tmp_path_factory.mktemp("elsewhere")
    code = """
from peft import PeftModel
found = {name: outputs(auto(f"ada/{name}")) for name in ("stage1", "stage2", "stage2-merged")}
config = AutoConfig.from_pretrained("ada/adapters1", trust_remote_code=True)
found["adapters1"] = outputs(auto("ada/adapters1", config=config))
config = AutoConfig.from_pretrained("ada/stage2", trust_remote_code=True)
found["peft"] = outputs(PeftModel.from_pretrained(auto("ada/stage1", config=config), "ada/stage2"))
sounds = [noise[0].numpy(), noise[1, :3000].numpy()]
for name in ("stage1", "stage2"):
    classify = pipeline("audio-classification", model=f"ada/{name}", trust_remote_code=True)
    found[f"pipeline {name}"] = classify(sounds), classify(sounds, batch_size=2)
for name in ("stage1", "stage2", "stage2-merged"):
    for place in (f"ada/{name}", *([folders[name]] if name in folders else [])):
        recognize = pipeline("speech-emotion", model=place, trust_remote_code=True)
        found[f"recognized {name} {place in folders.values()}"] = recognize(recordings), recognize(recordings[0])
        assert [*recognize(recording for recording in recordings[:1])] == [recognize(recordings[0])]
        assert "transcript" not in recognize(recordings[0], transcript=False)
torch.save(found, "found.pt")
"""
    write_recordings(folder)
    folders = {name: str(runs[name]) for name in ("stage1", "stage2")}
    run_elsewhere(sys.executable, PREAMBLE + f"folders = {folders!r}\n" + RECORDINGS + code, folder)
    return torch.load(folder / "found.pt")


@pytest.mark.parametrize("name", ["stage1", "stage2", "adapters1"])
def test_the_auto_class_gives_the_logits_of_the_run(runs, loaded, name):
    assert_same(loaded[name], outputs(SerMtlModel.from_pretrained(runs[name])))


def test_the_merged_model_gives_the_same_logits_to_rounding(runs, loaded):
    assert_same(loaded["stage2-merged"], outputs(SerMtlModel.from_pretrained(runs["stage2"])), tolerance=1e-5)


def test_peft_loads_the_adapters_onto_their_base(runs, loaded):
    assert_same(loaded["peft"], outputs(SerMtlModel.from_pretrained(runs["stage2"])))


@pytest.mark.parametrize("name", ["stage1", "stage2", "stage2-merged", "adapters1"])
def test_our_own_class_loads_it_by_its_name(runs, name):
    expected = outputs(SerMtlModel.from_pretrained(runs[name.removesuffix("-merged")]))
    assert_same(outputs(SerMtlModel.from_pretrained(f"ada/{name}")), expected, 1e-5 if "merged" in name else 0)


@pytest.mark.parametrize("name", ["stage1", "stage2"])
def test_a_pipeline_answers_as_the_model_does_alone_and_in_a_padded_batch(runs, loaded, name):
    from transformers import AutoFeatureExtractor

    alone, batched = loaded[f"pipeline {name}"]
    model = SerMtlModel.from_pretrained(runs[name]).eval()
    extractor = AutoFeatureExtractor.from_pretrained(runs[name])
    noise = torch.randn(2, 6000, generator=torch.Generator().manual_seed(0)).numpy()
    for i, sound in enumerate((noise[0], noise[1, :SHORT])):
        with torch.inference_mode():
            p = model(**extractor(sound, sampling_rate=SAMPLING_RATE, return_tensors="pt")).logits.softmax(-1)[0]
        expected = dict(zip(model.config.labels["emotion"], p.tolist(), strict=True))
        for answers in (alone, batched):
            assert {answer["label"]: answer["score"] for answer in answers[i]} == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("name", "folder"), [(f"stage{n}", f) for n in (1, 2) for f in (True, False)])
def test_our_pipeline_answers_as_the_recognizer_does(runs, loaded, tmp_path, monkeypatch, name, folder):
    check_recognized(
        ser_mtl.load(runs[name], device="cpu"), loaded[f"recognized {name} {folder}"], tmp_path, monkeypatch
    )


def test_our_pipeline_answers_for_a_merged_model_without_a_transcript(runs, loaded, tmp_path, monkeypatch):
    recognizer = ser_mtl.load(runs["stage2"], device="cpu", transcript=False)
    check_recognized(recognizer, loaded["recognized stage2-merged False"], tmp_path, monkeypatch)


def check_recognized(recognizer, found: tuple[list[dict], dict], folder: Path, monkeypatch) -> None:
    monkeypatch.chdir(folder)
    write_recordings(folder)
    names = {"noise": torch.randn(2, 6000, generator=torch.Generator().manual_seed(0))}
    exec(RECORDINGS, names)
    answers, alone = found
    assert alone.keys() == answers[0].keys()
    for answer, expected in zip(answers, recognizer(names["recordings"]), strict=True):
        for part, other in ((answer, expected), *zip(answer["segments"], expected["segments"], strict=True)):
            check_same(part, other)


def check_same(answer: dict, expected: dict) -> None:
    assert answer.keys() == expected.keys()
    for task, part in expected.items():
        if isinstance(part, dict):
            assert answer[task]["label"] == part["label"]
            assert answer[task]["probabilities"] == pytest.approx(part["probabilities"], abs=1e-5)
        elif task != "segments":
            assert answer[task] == part


@pytest.mark.parametrize("name", ["stage1", "stage2", "stage2-merged", "adapters1"])
def test_the_programs_of_the_card_run_as_they_stand(runs, elsewhere, tmp_path, name):
    card = Path(hf_hub_download(f"ada/{name}", "README.md")).read_text()
    programs = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    assert len(programs) == {"stage1": 2, "stage2": 3, "stage2-merged": 2, "adapters1": 1}[name]
    stereo = np.stack([tone(440, 0.5, 44_100), tone(330, 0.5, 44_100)], axis=1)
    soundfile.write(tmp_path / "speech.wav", stereo, 44_100)
    ended = elsewhere(f"for program in {programs!r}: exec(program, {{}})", tmp_path)
    for label in ("angry", "sad"):
        assert label in ended.stdout
    assert "trust_remote_code" not in ended.stdout + ended.stderr  # nobody is asked, or warned


@pytest.mark.parametrize("name", ["stage1", "stage2"])
def test_the_run_folder_itself_loads_as_its_card_says(runs, elsewhere, tmp_path, name):
    elsewhere(PREAMBLE + f"torch.save(outputs(auto({str(runs[name])!r})), 'found.pt')", tmp_path)
    assert_same(torch.load(tmp_path / "found.pt"), outputs(SerMtlModel.from_pretrained(runs[name])))


def test_what_was_loaded_once_loads_without_the_network(runs, loaded, tmp_path):
    code = PREAMBLE + "torch.save(outputs(auto('ada/stage2')), 'found.pt')"
    run_elsewhere(sys.executable, code, tmp_path, HF_HUB_OFFLINE="1", HF_ENDPOINT="http://127.0.0.1:9")
    assert_same(torch.load(tmp_path / "found.pt"), loaded["stage2"])


def test_adapters_keep_the_base_they_were_trained_on_when_that_moves_on(hub_server, runs, elsewhere, tmp_path):
    before = outputs(SerMtlModel.from_pretrained("ada/stage2"))
    repository = hub_server.repositories["ada/stage1"]
    trained_on = repository.branches["main"]
    other = SerMtlModel(SerMtlConfig.from_pretrained(runs["stage1"]))
    other.push_to_hub("ada/stage1")
    assert repository.branches["main"] != trained_on
    assert not torch.equal(outputs(SerMtlModel.from_pretrained("ada/stage1"))["logits"], before["logits"])
    assert_same(outputs(SerMtlModel.from_pretrained("ada/stage2")), before)
    elsewhere(PREAMBLE + "torch.save(outputs(auto('ada/stage2')), 'found.pt')", tmp_path)
    assert_same(torch.load(tmp_path / "found.pt"), before)
    repository.branches["main"] = trained_on


def test_a_revision_that_is_asked_for_is_the_one_of_the_adapters(runs, elsewhere, tmp_path):
    """By its commit, though the adapters have been trained on since, and though their base has no such commit."""
    before = HfApi().repo_info("ada/stage2").sha
    expected = outputs(SerMtlModel.from_pretrained("ada/stage2"))
    later = shutil.copytree(runs["stage2"], tmp_path / "later")
    weights = load_file(later / "adapter_model.safetensors")
    heads = [name for name in weights if name.startswith("base_model.model.heads")]
    assert heads
    save_file(weights | {name: 2 * weights[name] for name in heads}, later / "adapter_model.safetensors")
    publish(later, "ada/stage2", "--base_repo_id", "ada/stage1")
    assert not torch.equal(outputs(SerMtlModel.from_pretrained("ada/stage2"))["logits"], expected["logits"])
    assert_same(outputs(SerMtlModel.from_pretrained("ada/stage2", revision=before)), expected)
    # The Auto class would look for a plain `revision` in the base's repository too.
    of_adapters = f"adapter_kwargs={{'revision': '{before}'}}"
    elsewhere(PREAMBLE + f"torch.save(outputs(auto('ada/stage2', {of_adapters})), 'found.pt')", tmp_path)
    assert_same(torch.load(tmp_path / "found.pt"), expected)
    publish(runs["stage2"], "ada/stage2", "--base_repo_id", "ada/stage1")


def test_only_the_given_token_opens_adapters_and_base(runs, tmp_path, monkeypatch):
    with pytest.raises(OSError, match="ada/stage2"):
        SerMtlModel.from_pretrained("ada/stage2", token="hf_made_up_of_bob", cache_dir=tmp_path)
    monkeypatch.setenv("HF_TOKEN", "hf_made_up_of_bob")
    model = SerMtlModel.from_pretrained("ada/stage2", token="hf_made_up_of_ada", cache_dir=tmp_path)
    assert_same(outputs(model), outputs(SerMtlModel.from_pretrained(runs["stage2"])))


def test_the_card_is_one_that_the_client_accepts(runs):
    for name in ("stage1", "stage2", "stage2-merged", "adapters1"):
        card = ModelCard.load(f"ada/{name}")
        card.validate()
        results = json.loads((runs[name.removesuffix("-merged")] / "results.json").read_text())
        values = {evaluation.metric_value for evaluation in card.data.eval_results}
        assert results["test"]["all"]["emotion"]["ua"] in values
        assert "article 5(1)(f)" in card.text


def test_loading_changes_no_run_folder(runs):
    before = {name: contents(run) for name, run in runs.items()}
    for run in runs.values():
        SerMtlModel.from_pretrained(run)
    assert {name: contents(run) for name, run in runs.items()} == before
