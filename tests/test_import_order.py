"""Imports run one way: each folder of the package imports only from those before it, and there are no cycles."""

import ast
from pathlib import Path

import pytest
from helpers.tiny import ROOT

ORDER = (
    {"tasks", "metrics", "errors", "files", "safe_text", "stopping", "parsing", "lock", "cluster", "processes"},
    {"corpora"},
    {"model"},
    {"evaluation"},
    {"inference"},
    {"annotation"},
    {"hub"},
    {"page"},
    {"training"},
    {"research"},
    {"recipe"},
    {"cross"},
    {"tables"},
    {"cli"},
    {"programs"},
    {"commands"},
)
"""Layers of `ser_mtl`, from the bottom; within the first, modules may import each other."""

LEVEL = {name: level for level, names in enumerate(ORDER) for name in names}
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted((ROOT / "ser_mtl").rglob("*.py"))
}


def imports_of(path: Path, at_top: bool = False) -> set[str]:
    """Modules that a file imports: in functions too unless `at_top`, but not those for type hints alone."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    hints = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and getattr(block.test, "id", "") == "TYPE_CHECKING"
        for node in ast.walk(block)
    }
    found = set()
    for node in tree.body if at_top else ast.walk(tree):
        if id(node) in hints:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (inner & MODULES.keys()) or {node.module}
    return found


def layer(module: str) -> str | None:
    parts = module.split(".")
    return parts[1] if parts[0] == "ser_mtl" and len(parts) > 1 and parts[1] in LEVEL else None


@pytest.mark.parametrize("module", [name for name in MODULES if layer(name)])
def test_a_module_imports_only_from_the_layers_before_its_own(module):
    own = layer(module)
    for imported in imports_of(MODULES[module]):
        other = layer(imported)
        assert other is None or LEVEL[other] <= LEVEL[own], f"{module} imports {imported}"


def test_there_are_no_cycles():
    graph = {name: imports_of(path) & MODULES.keys() for name, path in MODULES.items()}
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join((*path, module))
        if module not in done:
            for imported in graph[module]:
                visit(imported, (*path, module))
            done.add(module)

    for module in graph:
        visit(module, ())


def test_what_travels_to_the_hub_imports_nothing_else_of_this_project():
    for file in ROOT.glob("*_ser_mtl.py"):
        assert not {word for word in imports_of(file) if word.split(".")[0] in ("ser_mtl", "data")}


def test_research_is_imported_only_where_it_is_asked_for():
    for module, path in MODULES.items():
        if layer(module) in ("research", None) or LEVEL[layer(module)] > LEVEL["recipe"]:
            continue
        at_top = {word for word in imports_of(path, at_top=True) if word.startswith("ser_mtl.research")}
        assert at_top <= ({"ser_mtl.research.arguments"} if module == "ser_mtl.recipe" else set()), module
