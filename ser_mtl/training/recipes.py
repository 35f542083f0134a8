"""Recipes: named defaults of both stages. A flag on the command line, or in a file, wins over the recipe."""

from typing import Any

RECIPES: dict[str, dict[int, dict[str, Any]]] = {
    "paper": {1: {}, 2: {}},
    "small": {
        1: {
            "num_train_epochs": 3.0,
            "min_updates": 200,
            "refit": True,
            "layer_statistics": True,
            "probe_start": True,
            "augment": ["speed"],
        },
        2: {"num_train_epochs": 3.0, "min_updates": 100, "learning_rate": 5e-4, "refit": True},
    },
}
"""For each recipe and stage, the flags that differ from the paper's defaults."""

FLAGS_OF_RECIPES = {stage: frozenset(name for recipe in RECIPES.values() for name in recipe[stage]) for stage in (1, 2)}
"""The flags that any recipe sets, by stage."""

_INSTEAD = {"num_train_epochs": ("min_updates",), "max_steps": ("num_train_epochs", "min_updates")}
"""Further values of a recipe that a flag on the command line replaces."""


def recipe_of(corpus: str) -> str:
    """The recipe of a corpus, unless `--recipe` names another."""
    return "paper" if corpus in ("iemocap", "demo") else "small"


def defaults_of(recipe: str, stage: int, given: dict[str, Any]) -> dict[str, Any]:
    """The defaults of a stage.

    Args:
        recipe: its name.
        stage: 1 or 2.
        given: the flags that a command line or a file sets, with their values.
    """
    values = dict(RECIPES[recipe][stage])
    for name in given:
        for other in _INSTEAD.get(name, ()):
            values.pop(other, None)
    other_heads = given.get("trainable") == "heads" or given.get("emotion_head", "none") != "none"
    no_new_head = given.get("merge_emotion") or "emotion" not in (given.get("tasks") or ["emotion"])
    contradicted = {
        "refit": given.get("dev") == "none" or given.get("selection", "dev") != "dev",
        "layer_statistics": given.get("layer_weights") or other_heads,
        "augment": given.get("front_end_cache") == "always",
        "probe_start": other_heads or no_new_head,
    }
    return {name: value for name, value in values.items() if not contradicted.get(name)}
