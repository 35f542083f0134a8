"""The page as a Space of the Hub: a folder with everything that it needs, except a model that is on the Hub."""

import shutil
import sys
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

import yaml
from huggingface_hub.utils import HFValidationError, validate_repo_id

import pipeline_ser_mtl
import ser_mtl
from ser_mtl.errors import UserError
from ser_mtl.files import read_json, replacing, write_json
from ser_mtl.hub.links import hub_id
from ser_mtl.hub.record import published_as
from ser_mtl.model.base import base_of
from ser_mtl.page.clips import Limits

_OF_MODEL = ("*.safetensors", "*.safetensors.index.json", "*config.json", "vocab.json", "tokenizer.json")
"""Patterns of the files that are loaded from the folder of a model, and of its base."""

_APP = '''\
"""The page of this Space, as `ser-mtl page` serves it; its code is beside this file."""

from pathlib import Path

from ser_mtl.cli import command_line
from ser_mtl.inference.recognizer import load
from ser_mtl.page.app import serve
from ser_mtl.page.clips import Limits

HERE = Path(__file__).parent


def main() -> None:
    """Serve the page."""
    recognizer = load({model}, base={base}, dtype={dtype!r}, transcript={transcript!r})
    serve(recognizer, Limits(seconds={seconds!r}, megabytes={megabytes!r}), host=None)


if __name__ == "__main__":
    command_line(main)
'''
_TEXT = """\
# Speech emotion recognition

Record or drop a clip: the page shows emotion over time, from the sound alone. A recording is deleted as soon as it
has been read.

The model is {model}. `app.py` serves the page, `ser_mtl/` and the files beside it are its code. Try it anywhere, with
Python {python}: `pip install -r requirements.txt`, then `python app.py`.
"""
_ATTRIBUTES = "*.safetensors filter=lfs diff=lfs merge=lfs -text\n"


def write_space(folder: Path, name: str, model: str, base: str | None, limits: Limits, options: dict) -> None:
    """Write the folder of a Space. It appears once it is complete.

    Args:
        folder: to create.
        name: of the Space, as `namespace/name`.
        model: a Hub id, or a folder; one that was published is taken from the Hub, any other is copied.
        base: of the model's adapters: a Hub id or a folder; by default the one that they name.
        limits: of a clip.
        options: `dtype` and `transcript` of `ser_mtl.load`.

    Raises:
        UserError: an invalid name, a folder that is not empty, no such model, or one that cannot be copied.
    """
    _check(folder, name)
    source, on_hub = _found(model)
    if source is None and base is not None and hub_id(base) is None:
        raise UserError(f"--base {base}: must be on the Hub, as the model is; name it by its Hub id")
    lines = _requirements()
    with replacing(folder) as partial:
        partial.mkdir()
        if folder.is_dir():  # empty
            folder.rmdir()
        own_base = repr(base) if source is None else _copy_with_base(source, base, partial)
        place = 'HERE / "model"' if source is not None else repr(on_hub)
        app = _APP.format(model=place, base=own_base, **options, **limits._asdict())
        (partial / "app.py").write_text(app, encoding="utf-8")
        (partial / "requirements.txt").write_text("\n".join([*lines, ""]), encoding="utf-8")
        (partial / "README.md").write_text(_readme(on_hub), encoding="utf-8")
        (partial / ".gitattributes").write_text(_ATTRIBUTES, encoding="utf-8")
        _copy_code(partial)


def _check(folder: Path, name: str) -> None:
    try:
        validate_repo_id(name)
    except HFValidationError:
        name = ""
    if "/" not in name:
        raise UserError("--space: must be the name of a Space, such as me/demo")
    if folder.is_symlink() or folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise UserError(f"{folder}: already exists; remove it, or name another folder with --output_dir")


def _found(model: str) -> tuple[Path | None, str | None]:
    """The folder of a model to be copied, or its Hub id."""
    folder = Path(model)
    if folder.is_dir():
        published = published_as(folder)
        return (None, published.repo_id) if published else (folder, None)
    if hub_id(model) is None:
        raise UserError(f"--model {model}: is neither a folder here nor a Hub id (namespace/name)")
    return None, model


def _copy_with_base(model: Path, base: str | None, space: Path) -> str:
    """Copy a model and, if it has adapters on a local base, that too. Returns the base as an expression of `app.py`."""
    named = base_of(model, base)
    _copy_model(model, space / "model")
    if named is None or not Path(named).is_dir():
        return repr(base)
    if (Path(named) / "adapter_config.json").is_file():
        raise UserError(f"--model {model}: adapters on adapters ({named}); publish both, and name it by its Hub id")
    _copy_model(Path(named), space / "base")
    file = space / "model" / "adapter_config.json"
    write_json(file, read_json(file) | {"base_model_name_or_path": "base"})
    return 'str(HERE / "base")'


def _copy_model(source: Path, target: Path) -> None:
    """Copy the files of a model, without this machine's paths."""
    target.mkdir()
    for file in _files(source):
        if file.suffix == ".json":
            write_json(target / file.name, _without_paths(read_json(file)))
        else:
            shutil.copyfile(file, target / file.name)
    if not any(target.glob("*.safetensors")):
        raise UserError(f"{source}: holds no weights (*.safetensors)")


def _files(source: Path) -> Iterable[Path]:
    for file in sorted({file for pattern in _OF_MODEL for file in source.glob(pattern)}):
        if file.is_symlink():  # it could publish any file of this machine
            raise UserError(f"{file}: is a link, which is not followed; put the file itself there")
        yield file


def _without_paths(content: dict) -> dict:
    inner = {name: _without_paths(value) if isinstance(value, dict) else value for name, value in content.items()}
    return {name: value for name, value in inner.items() if name != "_name_or_path"}


def _copy_code(space: Path) -> None:
    package = Path(ser_mtl.__file__).parent
    shutil.copytree(package, space / package.name, ignore=shutil.ignore_patterns("__pycache__"))
    for file in Path(pipeline_ser_mtl.__file__).parent.glob("*_ser_mtl.py"):
        shutil.copyfile(file, space / file.name)


def _requirements() -> list[str]:
    try:
        lines = [line for line in requires("ser-mtl") or [] if "extra ==" not in line]
    except PackageNotFoundError as error:
        raise UserError("--space: needs the installed package, which knows its requirements; pip install .") from error
    return sorted([*lines, f"gradio=={version('gradio')}"], key=str.lower)


def _readme(on_hub: str | None) -> str:
    python = f"{sys.version_info[0]}.{sys.version_info[1]}"
    head = {
        "title": "Speech emotion recognition",
        "emoji": "🎙️",
        "colorFrom": "blue",
        "colorTo": "gray",
        "sdk": "gradio",
        "sdk_version": version("gradio"),
        "python_version": python,
        "app_file": "app.py",
        "license": "apache-2.0",
        "short_description": "Emotion of a voice over time, and its words",
    } | ({"models": [on_hub]} if on_hub else {})
    model = f"[{on_hub}](https://huggingface.co/{on_hub})" if on_hub else "in `model/`"
    more = "" if on_hub is None else "If that is private, give the Space a secret `HF_TOKEN` that may read it.\n"
    text = _TEXT.format(model=model, python=python)
    return f"---\n{yaml.safe_dump(head, sort_keys=False, allow_unicode=True)}---\n\n{text}{more}"
