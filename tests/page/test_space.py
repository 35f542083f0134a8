"""The folder of a Space holds all that it needs, and nothing of this machine."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from helpers.tiny import check_one_line, run_script

import ser_mtl
from ser_mtl.hub.record import Published, record_publication

gradio = pytest.importorskip("gradio")


def write(folder: Path, *more: object):
    return run_script("page", ["--space", "me/demo", "--output_dir", folder, *more])


def test_a_space_of_adapters_answers_as_they_do(finished2, tmp_path):
    ended = write(tmp_path / "space", "--model", finished2)
    assert ended.code == 0 and "hf upload me/demo" in ended.stdout
    space = tmp_path / "space"
    noise = (np.random.default_rng(0).normal(0, 0.1, 16_000), 16_000)
    moved = ser_mtl.load(space / "model", base=str(space / "base"))
    assert moved(noise) == ser_mtl.load(finished2)(noise)
    own = [file for file in space.rglob("*") if file.suffix in (".json", ".md", ".txt") or file.name == "app.py"]
    assert own and not [file for file in own if str(finished2.parent.parent) in file.read_text(encoding="utf-8")]
    names = {file.name for file in space.rglob("*")}
    assert not names & {"predictions.jsonl", "split.json", "results.json", "__pycache__"}


def test_the_code_of_a_space_is_all_of_the_package(small_model, tmp_path):
    assert write(tmp_path / "space", "--model", small_model).code == 0
    space, package = tmp_path / "space", Path(ser_mtl.__file__).parent
    files = [file for file in package.rglob("*") if file.is_file() and "__pycache__" not in file.parts]
    for file in [*files, *package.parent.glob("*_ser_mtl.py")]:
        assert (space / file.relative_to(package.parent)).read_bytes() == file.read_bytes()
    compile((space / "app.py").read_text(encoding="utf-8"), "app.py", "exec")


@pytest.mark.slow
def test_the_code_of_a_space_runs_without_this_checkout(small_model, tmp_path):
    assert write(tmp_path / "space", "--model", small_model).code == 0
    space = tmp_path / "space"
    program = "import runpy, sys; runpy.run_path('app.py'); print(sys.modules['ser_mtl.page.app'].__file__)"
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-c", program]
    ended = subprocess.run(command, cwd=space, env=variables, capture_output=True, text=True)
    assert Path(ended.stdout.strip()) == space / "ser_mtl" / "page" / "app.py", ended.stderr


def test_the_readme_of_a_space_has_the_keys_of_the_hub(small_model, tmp_path):
    write(tmp_path / "space", "--model", "me/model", "--max_seconds", 60)
    _, head, text = (tmp_path / "space" / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    head = yaml.safe_load(head)
    assert (head["sdk"], head["sdk_version"], head["app_file"]) == ("gradio", gradio.__version__, "app.py")
    assert head["models"] == ["me/model"] and "HF_TOKEN" in text and len(head["short_description"]) <= 60
    assert not (tmp_path / "space" / "model").exists()
    app = (tmp_path / "space" / "app.py").read_text(encoding="utf-8")
    assert "load('me/model', base=None" in app and "seconds=60.0" in app
    assert f"gradio=={gradio.__version__}" in (tmp_path / "space" / "requirements.txt").read_text().splitlines()


def test_a_model_that_was_published_is_taken_from_the_hub(small_model, tmp_path):
    model = tmp_path / "model"
    model.mkdir()
    for file in small_model.iterdir():
        (model / file.name).write_bytes(file.read_bytes())
    record_publication(model, Published("me/published", "0" * 40))
    assert write(tmp_path / "space", "--model", model).code == 0
    assert "load('me/published'" in (tmp_path / "space" / "app.py").read_text(encoding="utf-8")


def test_what_cannot_become_a_space_is_one_line(small_model, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    check_one_line(write(tmp_path / "full", "--model", "me/model"), "page", tmp_path / "full", "--output_dir")
    check_one_line(write(tmp_path / "a", "--model", "nothing"), "page", "--model nothing")
    check_one_line(run_script("page", ["--model", "me/model", "--space", "demo"]), "page", "--space", "me/demo")
    check_one_line(run_script("page", ["--model", "me/model", "--output_dir", "a"]), "page", "--output_dir")
    assert [file.name for file in tmp_path.iterdir()] == ["full"]
