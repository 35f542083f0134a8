"""Every example of the README and the docs runs as written, in an empty folder, from the installed wheel."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile
from helpers.hub_server import File, Repository
from helpers.tiny import PITCHES, ROOT, SAMPLING_RATE, tone, write_corpus

PAGES = [
    ROOT / "README.md",
    *sorted({*(ROOT / "docs").glob("*.md")} - {ROOT / "docs/onnx.md", ROOT / "docs/service.md"}),
]
"""The example of onnx.md runs without the package, in `tests/hub/test_onnx.py`; that of service.md, as a service."""
SCRIPTS = ("run_stage1.py", "run_stage2.py", "run_tables.py")
"""In the folder as in a clone: the examples of training start them by name."""

RUN = """
import json, subprocess, sys
names = {"__name__": "__main__"}
for language, code in json.load(open(sys.argv[1])):
    print("----", code, flush=True)
    if language == "python":
        exec(compile(code, "example", "exec"), names)
    else:
        subprocess.run(["bash", "-ec", code], check=True)
"""


def examples(page: Path) -> list[tuple[str, str]]:
    """Language and content of the blocks of a page that run."""
    text = page.read_text(encoding="utf-8")
    return re.findall(r"^```(python|bash)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def installed(wheel, python, tmp_path_factory) -> Path:
    """A folder with what the wheel installs; its command runs in `python`."""
    folder = tmp_path_factory.mktemp("installed")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", folder, wheel]
    subprocess.run(command, check=True)
    script = folder / "bin/ser-mtl"
    script.write_text(re.sub("^#!.*", f"#!{python}", script.read_text()))
    return folder


@pytest.fixture(scope="module")
def published(hub_server, encoder, finished, finished2, tmp_path_factory) -> None:
    """The repositories that the examples name: two encoders and the models of both stages."""
    from ser_mtl.hub.push import publish_run

    hub_server.clear()
    hub_server.tokens["hf_made_up_of_me"] = "me"
    for name in ("facebook/wav2vec2-base", "facebook/wav2vec2-xls-r-300m"):
        files = {path.name: File(path.read_bytes(), path.suffix == ".safetensors") for path in encoder.iterdir()}
        hub_server.repositories[name] = Repository(private=False)
        hub_server.repositories[name].commit("main", "encoder", files)
        hub_server.stored |= {file.sha256: file.content for file in files.values() if file.large}
    folder = tmp_path_factory.mktemp("published")
    for run, name in ((finished, "me/xlsr-ser-stage1"), (finished2, "me/xlsr-ser-stage2")):
        copy = shutil.copytree(run, folder / name.split("/")[1])
        publish_run(copy, name, base_repo_id="me/xlsr-ser-stage1", token="hf_made_up_of_me")


@pytest.mark.parametrize("page", [page for page in PAGES if examples(page)], ids=lambda page: page.name)
def test_examples_of_the_page_run_as_written(page, installed, published, finished, finished2, python, tmp_path):
    # By default, a run has so many updates, in whole epochs: the fewer, the larger the corpus is.
    write_corpus(tmp_path / "my_recordings", PITCHES if page.name == "recipes.md" else ("angry", "sad"))
    if not any("run_stage1.py" in code for _, code in examples(page)):  # else it makes its own
        for stage, run in enumerate((finished, finished2), 1):
            copy = shutil.copytree(run, tmp_path / f"runs/folder/stage{stage}/fold1")
        shutil.copytree(finished, tmp_path / "runs/iemocap/stage1/fold1")
        adapter = (copy / "adapter_config.json").read_text()
        base = str(tmp_path / "runs/folder/stage1/fold1")
        (copy / "adapter_config.json").write_text(adapter.replace(str(finished), base))
    for name in ("call.mp3", "speech.wav"):
        soundfile.write(tmp_path / name, tone(440, 0.6), SAMPLING_RATE)
    for script in SCRIPTS:
        shutil.copy(installed / script, tmp_path)
    (tmp_path / "examples.json").write_text(json.dumps(examples(page)))
    (tmp_path / "run_examples.py").write_text(RUN)
    places = installed / "bin", Path(python).parent, Path(sys.executable).parent
    paths = os.pathsep.join([*map(str, places), os.environ["PATH"]])
    environment = os.environ | {"PYTHONPATH": str(installed), "PATH": paths, "HF_TOKEN": "hf_made_up_of_me"}
    ended = subprocess.run(
        [python, "run_examples.py", "examples.json"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stdout[-1500:] + ended.stderr[-3000:]
