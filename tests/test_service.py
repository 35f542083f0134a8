"""The service of docs/service.md answers over HTTP as the recognizer does, many at once; its Dockerfile parses."""

import importlib.util
import json
import re
import shlex
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatch
from pathlib import Path

import pytest
import soundfile
from helpers.tiny import ROOT, SAMPLING_RATE, tone
from helpers.untrained import write_model

import ser_mtl

PROGRAM = ROOT / "docs/service.py"
INSTRUCTIONS = {"FROM", "RUN", "WORKDIR", "COPY", "USER", "ENV", "EXPOSE", "HEALTHCHECK", "CMD"}


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "untrained")


@pytest.fixture
def client(model, monkeypatch):
    """A client of the service, as it starts with this model and a limit of 1 MiB."""
    pytest.importorskip("fastapi")
    from fastapi.testclient import TestClient

    monkeypatch.setenv("MODEL", str(model))
    monkeypatch.setenv("MEBIBYTES", "1")
    spec = importlib.util.spec_from_file_location("service", PROGRAM)
    service = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(service)
    return TestClient(service.app)


def test_eight_requests_at_once_have_the_answers_of_the_recognizer(client, model, tmp_path):
    files = [tmp_path / f"{number}.wav" for number in range(8)]
    for number, file in enumerate(files):
        soundfile.write(file, tone(200 + 50 * number, 0.3 + 0.1 * number), SAMPLING_RATE)
    recognizer = ser_mtl.load(model)
    expected = [recognizer(file) for file in files]
    with ThreadPoolExecutor(8) as threads:
        responses = list(threads.map(lambda file: client.post("/answer", content=file.read_bytes()), files * 2))
    assert [response.json() for response in responses] == json.loads(json.dumps(expected * 2))


def test_options_limits_and_errors_are_said_in_http(client, tmp_path):
    soundfile.write(tmp_path / "a.wav", tone(300, 0.5), SAMPLING_RATE)
    clip = (tmp_path / "a.wav").read_bytes()
    answer = client.post("/answer?transcript=false&abstain=1", content=clip).json()
    assert answer["emotion"]["label"] == "unsure" and "transcript" not in answer
    for path, body, code, said in (
        ("/answer", b"no audio", 422, "recording: cannot be read as audio"),
        ("/answer", b"", 422, "recording"),
        ("/answer", bytes(2**20 + 1), 413, "larger than 1 MiB"),
        ("/answer?abstain=2", clip, 422, "less than or equal to 1"),
    ):
        response = client.post(path, content=body)
        assert response.status_code == code and said in response.text
    assert client.get("/health").json()["labels"]["gender"] == ["female", "male"]


def test_the_page_shows_the_program_of_forty_lines():
    program = PROGRAM.read_text()
    assert f"```python\n{program}```\n" in (ROOT / "docs/service.md").read_text()
    assert len(program.splitlines()) <= 40


def instructions() -> list[tuple[str, str]]:
    """Each instruction of the Dockerfile, with the rest of its line."""
    text = re.sub(r"^\s*#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    lines = [line for line in re.sub(r"\\\n", " ", text).splitlines() if line.strip()]
    return [(line.split()[0], line.split(maxsplit=1)[1]) for line in lines]


def test_the_dockerfile_parses_and_copies_what_is_there_and_not_ignored():
    parsed = instructions()
    assert parsed[0][0] == "FROM" and {name for name, _ in parsed} <= INSTRUCTIONS
    kept = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    copied = set()
    for name, rest in parsed:
        if name == "COPY":
            *sources, _ = shlex.split(rest)
            for source in sources:
                found = list(ROOT.glob(source))
                assert found and all(any(fnmatch(str(f.relative_to(ROOT)), line) for line in kept) for f in found)
                copied |= {file.name for file in found}
        if name in ("CMD", "HEALTHCHECK"):
            assert all(isinstance(word, str) for word in json.loads(rest[rest.index("[") :]))
    assert copied >= {"requirements.lock", "pyproject.toml", "ser_mtl", "service.py", "modeling_ser_mtl.py"}


def test_the_image_has_the_packages_of_the_lock_file_which_are_those_of_the_service():
    commands = [rest for name, rest in instructions() if name == "RUN"]
    assert any("--require-hashes -r requirements.lock" in command for command in commands)
    installs = [command for command in commands if "pip install" in command and "requirements.lock" not in command]
    assert all("--no-deps" in command and "--no-build-isolation" in command for command in installs)
    lock = (ROOT / "requirements.lock").read_text()
    for package in ("fastapi", "uvicorn", "setuptools"):
        assert re.search(rf"^{package}==", lock, re.MULTILINE)
