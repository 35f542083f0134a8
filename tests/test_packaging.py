"""The wheel holds the package, its templates and its scripts, and the requirements name every import."""

import ast
import re
import sys
import tomllib
import zipfile
from itertools import chain

import pytest
from helpers.tiny import ROOT, TRAVELLING

import ser_mtl

DISTRIBUTIONS = {
    "PIL": "pillow",
    "gradio_client": "gradio",
    "markdown_it": "markdown-it-py",
    "sklearn": "scikit-learn",
    "yaml": "PyYAML",
}
"""Of imports that have another name than what is installed."""
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
"""What is needed for some commands alone."""


@pytest.fixture(scope="module")
def names(wheel) -> list[str]:
    """The files of the wheel."""
    return zipfile.ZipFile(wheel).namelist()


def test_the_wheel_holds_templates_modeling_file_and_scripts(names):
    assert {*TRAVELLING, "run_stage1.py", "run_stage2.py", "run_tables.py", "ser_mtl/__main__.py"} <= {*names}
    data = [path for kind in ("*.j2", "*.toml", "*.css", "*.js") for path in (ROOT / "ser_mtl").rglob(kind)]
    templates = {str(path.relative_to(ROOT)) for path in data}
    assert templates and templates <= set(names)


def test_the_wheel_holds_every_module_and_nothing_else(names):
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "ser_mtl").rglob("*.py")}
    assert modules == {name for name in names if name.startswith("ser_mtl/") and name.endswith(".py")}
    assert not [name for name in names if name.startswith(("tests", "data", "benchmarks", "docs"))]


def test_the_wheel_has_the_command_and_the_requirements(wheel, names):
    archive = zipfile.ZipFile(wheel)
    (entry_points,) = (name for name in names if name.endswith("entry_points.txt"))
    assert "ser-mtl = ser_mtl.cli:main" in archive.read(entry_points).decode()
    metadata = archive.read(next(name for name in names if name.endswith("METADATA"))).decode()
    wanted = [line for line in (ROOT / "requirements.txt").read_text().splitlines() if line and line[0] != "#"]
    assert len(re.findall(r"^Requires-Dist: [^;\n]+$", metadata, re.MULTILINE)) == len(wanted)
    for extra, needed in EXTRAS.items():
        assert len(re.findall(rf"^Requires-Dist: .*extra == .{extra}", metadata, re.MULTILINE)) == len(needed)
    assert f"Version: {ser_mtl.__version__}" in metadata


def test_versions_agree():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == ser_mtl.__version__
    assert f"version: {ser_mtl.__version__}" in (ROOT / "CITATION.cff").read_text()
    assert f"## {ser_mtl.__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_tests_are_run_with_the_extras():
    tried = [needed for extra, needed in EXTRAS.items() if extra not in ("vad", "microphone")]
    assert set(chain(*tried)) <= set((ROOT / "requirements-dev.txt").read_text().splitlines())


def test_every_import_is_a_requirement():
    lines = [*(ROOT / "requirements.txt").read_text().splitlines(), *chain(*EXTRAS.values())]
    required = {re.split(r"[<>=]", line)[0].lower().replace("-", "_") for line in lines}
    for path in [*(ROOT / "ser_mtl").rglob("*.py"), *ROOT.glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            for module in {module.split(".")[0] for module in modules}:
                if module in sys.stdlib_module_names or (ROOT / module).exists() or (ROOT / f"{module}.py").exists():
                    continue
                assert DISTRIBUTIONS.get(module, module).lower().replace("-", "_") in required, f"{path}: {module}"


LOCKED = re.compile(r"^([\w.-]+)==(\S+)(?: ; [^\\\n]+)?((?: \\\n    --hash=sha256:[0-9a-f]{64})+)$", re.MULTILINE)


def test_every_locked_version_has_hashes_and_is_installed_with_them():
    text = (ROOT / "requirements.lock").read_text()
    assert len(LOCKED.findall(text)) == len(re.findall(r"^\w", text, re.MULTILINE)) > 100
    assert "--require-hashes -r requirements.lock" in (ROOT / "Makefile").read_text()


def test_the_lock_file_satisfies_the_requirements():
    from packaging.requirements import Requirement

    text = (ROOT / "requirements.lock").read_text()
    locked = {name.lower().replace("_", "-"): version for name, version, _ in LOCKED.findall(text)}
    for file in ("requirements.txt", "requirements-dev.txt"):
        for line in (ROOT / file).read_text().splitlines():
            if line and not line.startswith(("#", "-")):
                requirement = Requirement(line)
                name = requirement.name.lower().replace("_", "-")
                assert requirement.specifier.contains(locked[name]), line
