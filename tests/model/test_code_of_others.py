"""A model's own code is never run and never offered: the model loads without it, or is refused in one line."""

import ast
import json
import shutil
from pathlib import Path

import pytest
from helpers.tiny import ROOT, check_one_line, check_refused, run_flags, run_script, tone
from transformers import AutoConfig

import ser_mtl
from ser_mtl.errors import UserError
from ser_mtl.training.stage1_start import feature_extractor_of, pretrained_encoder_config

CONFIGS = ("config.json", "preprocessor_config.json", "processor_config.json", "tokenizer_config.json")
AUTO_MAP = {
    name: "evil.Evil"
    for name in ("AutoConfig", "AutoModel", "AutoFeatureExtractor", "AutoProcessor", "AutoModelForAudioClassification")
} | {"AutoTokenizer": ["evil.Evil", None]}


def with_code(model: Path, folder: Path, **changes: object) -> Path:
    """A copy of a model with code that leaves `ran` in its folder, named by each of its json files; more changes."""
    shutil.copytree(model, folder)
    (folder / "evil.py").write_text(f"open({str(folder / 'ran')!r}, 'w')\nclass Evil: pass\n")
    for name in CONFIGS:
        if (folder / name).is_file():
            content = json.loads((folder / name).read_text())
            known = {key: value for key, value in changes.items() if key in content}
            (folder / name).write_text(json.dumps(content | known | {"auto_map": AUTO_MAP}))
    return folder


@pytest.fixture(autouse=True)
def never_asked(monkeypatch):
    """A user who would say yes is not asked."""
    asked: list[str] = []
    monkeypatch.setattr("builtins.input", lambda question="": asked.append(question) or "y")
    yield
    assert not asked


def test_an_encoder_of_a_known_family_is_loaded_without_its_code(encoder, tmp_path):
    folder = with_code(encoder, tmp_path / "encoder", feature_extractor_type="Evil")
    config = pretrained_encoder_config(str(folder))
    assert type(config) is type(AutoConfig.from_pretrained(encoder))
    assert feature_extractor_of(str(folder)).do_normalize
    assert not (folder / "ran").exists()


def test_an_encoder_that_needs_its_code_is_refused(good_corpus, encoder, tmp_path):
    folder = with_code(encoder, tmp_path / "encoder", model_type="evil", architectures=["Evil"])
    flags = run_flags(good_corpus, tmp_path / "out", encoder=folder)
    check_refused("run_stage1", flags, f"--encoder {folder}", "auto_map", "not run")
    assert not (folder / "ran").exists()


def test_a_stage_1_that_needs_its_code_is_refused(good_corpus, finished, tmp_path):
    folder = with_code(finished, tmp_path / "stage1", tokenizer_class="Evil")
    (folder / "args.json").unlink()
    flags = run_flags(good_corpus, tmp_path / "out", stage1=folder)
    check_refused("run_stage2", flags, f"--stage1 {folder}", "auto_map", "not run")
    assert not (folder / "ran").exists()


def test_a_run_is_loaded_without_the_code_in_its_folder(finished2, tmp_path):
    folder = with_code(finished2, tmp_path / "run")
    assert ser_mtl.load(folder)((tone(440, 0.4).astype("float32"), 16_000))["emotion"]
    assert not (folder / "ran").exists()


@pytest.mark.parametrize("change", [{"model_type": "evil"}, {"tokenizer_class": "Evil"}], ids=str)
def test_a_run_that_needs_its_code_is_refused(finished, tmp_path, change):
    folder = with_code(finished, tmp_path / "run", **change)
    with pytest.raises(UserError, match=f"model {folder}: needs code of its own"):
        ser_mtl.load(folder)
    assert not (folder / "ran").exists()


def test_an_export_does_not_run_the_code_of_the_base(finished, finished2, tmp_path):
    base, run = with_code(finished, tmp_path / "base"), shutil.copytree(finished2, tmp_path / "run")
    adapter = json.loads((run / "adapter_config.json").read_text())
    (run / "adapter_config.json").write_text(json.dumps(adapter | {"base_model_name_or_path": str(base)}))
    ended = run_script("export", [run, "--to", "merged"])
    assert ended.code == 0, ended.stderr
    evil = json.loads((base / "config.json").read_text()) | {"model_type": "evil"}
    (base / "config.json").write_text(json.dumps(evil))
    check_one_line(run_script("export", [run, "--to", "merged"]), "export", run, "not run")
    assert not (base / "ran").exists()


def test_every_call_that_may_run_code_says_no():
    asking = []
    for path in [*(ROOT / "ser_mtl").rglob("*.py"), *ROOT.glob("*.py"), *(ROOT / "benchmarks").glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(".from_pretrained"):
                loader = ast.unparse(node.func).split(".")[-2]
                says_no = any(one.arg == "trust_remote_code" and not one.value.value for one in node.keywords)
                if (loader.startswith("Auto") or loader.endswith("Processor")) and not says_no:
                    asking.append(f"{path}:{node.lineno}")
    assert not asking
