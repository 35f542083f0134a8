"""Recipes: the corpus names one, a flag wins over it, and what a run's args.json holds is trained again as it was."""

import json
import re

import pytest

from ser_mtl.recipe import parse_settings, record_of
from ser_mtl.training.outcome import HELP_BELOW_THE_LINE
from ser_mtl.training.recipes import RECIPES
from ser_mtl.training.stage import Stage1, Stage2


def settings(tmp_path, *words: object, stage=Stage1):
    words = ["--fold", 1, "--output_dir", tmp_path / "run", *words]
    return parse_settings(stage, [str(word) for word in words])


def values(parsed) -> dict:
    return vars(parsed.stage) | vars(parsed.args)


@pytest.mark.parametrize("stage", [Stage1, Stage2])
@pytest.mark.parametrize(
    ("corpus", "recipe"),
    [(["iemocap"], "paper"), (["demo"], "paper"), (["ravdess", "--data_dir", "x"], "small"),
     (["folder", "--data_dir", "x"], "small"), (["folder", "--data_dir", "x", "--recipe", "paper"], "paper"),
     (["iemocap", "--recipe", "small"], "small")],
)  # fmt: skip
def test_the_corpus_names_the_recipe_unless_a_flag_does(tmp_path, stage, corpus, recipe):
    parsed = settings(tmp_path, "--corpus", *corpus, stage=stage)
    assert parsed.corpus.recipe == recipe
    known = values(parsed) | vars(parsed.corpus)
    assert {name: known[name] for name in RECIPES[recipe][stage.number]} == RECIPES[recipe][stage.number]


def test_a_switch_needs_no_value_in_either_stage(tmp_path):
    for stage in (Stage1, Stage2):
        parsed = settings(tmp_path, "--corpus", "iemocap", "--layer_statistics", "--refit", stage=stage)
        assert parsed.stage.layer_statistics is True
    assert settings(tmp_path, "--corpus", "iemocap", stage=Stage2).stage.layer_statistics is None


def test_the_advice_below_the_line_names_flags_of_stage_1(tmp_path):
    flags = re.search(r"\((--layer_statistics [^;]*);", " ".join(HELP_BELOW_THE_LINE.split()))[1]
    parsed = settings(tmp_path, "--corpus", "iemocap", *flags.split())
    assert (parsed.stage.layer_statistics, parsed.stage.probe_start, parsed.args.augment) == (True, True, ["speed"])


def test_the_paper_is_what_the_flags_have_without_a_recipe(tmp_path):
    assert all(not stage for stage in RECIPES["paper"].values())
    parsed = settings(tmp_path, "--corpus", "iemocap")
    assert (parsed.args.num_train_epochs, parsed.args.learning_rate, parsed.args.min_updates) == (200, 1e-4, 0)
    assert not (parsed.stage.probe_start or parsed.stage.layer_weights or parsed.corpus.refit)


def test_a_flag_wins_over_the_recipe_even_with_the_papers_value(tmp_path):
    folder = ("--corpus", "folder", "--data_dir", "x")
    parsed = settings(tmp_path, *folder, "--learning_rate", "1e-3", "--refit=False")
    assert parsed.args.learning_rate == 1e-3 and not parsed.corpus.refit
    parsed = settings(tmp_path, *folder, "--num_train_epochs", 200)
    assert (parsed.args.num_train_epochs, parsed.args.min_updates) == (200, 0)
    assert settings(tmp_path, *folder, "--max_steps", 3).args.min_updates == 0
    assert not settings(tmp_path, *folder, "--selection", "last").corpus.refit
    assert not settings(tmp_path, *folder, "--dev", "none", "--selection", "last").corpus.refit
    file = tmp_path / "run.yaml"
    file.write_text("corpus: folder\ndata_dir: [x]\nlearning_rate: 1.0e-4\n")
    parsed = parse_settings(Stage1, [str(file), "--fold", "1", "--output_dir", str(tmp_path / "run")])
    assert parsed.args.learning_rate == 1e-4 and parsed.args.min_updates == RECIPES["small"][1]["min_updates"]


@pytest.mark.parametrize(
    ("flags", "taken_away"),
    [(["--layer_weights"], {"layer_statistics"}), (["--layer_weights", "False"], set()),
     (["--trainable", "heads"], {"layer_statistics", "probe_start"}), (["--trainable", "adapters"], set()),
     (["--tasks", "asr", "--selection", "last"], {"probe_start"}), (["--augment", "none"], {"augment"}),
     (["--front_end_cache", "always"], {"augment"}),
     (["--emotion_head", "linear"], {"layer_statistics", "probe_start"}),
     (["--tasks", "emotion", "--merge_asr", "x", "--merge_emotion", "y"], {"probe_start"})],
    ids=lambda value: " ".join(sorted(value)) or "nothing",
)  # fmt: skip
def test_a_flag_takes_away_what_contradicts_it_in_the_recipe(tmp_path, flags, taken_away):
    names = {"layer_statistics", "probe_start", "augment"}
    parsed = values(settings(tmp_path, "--corpus", "folder", "--data_dir", "x", *flags))
    assert {name for name in names if not parsed[name]} == taken_away


@pytest.mark.parametrize("stage", [Stage1, Stage2])
@pytest.mark.parametrize("flags", [["--recipe", "paper"], ["--recipe", "small"], [], ["--augment", "none"]], ids=str)
def test_the_args_of_a_run_give_the_same_run(tmp_path, stage, flags):
    record = record_of(
        settings(tmp_path, "--corpus", "folder", "--data_dir", tmp_path, "--seed", 3, *flags, stage=stage)
    )
    file = tmp_path / "args.json"
    file.write_text(json.dumps(record))
    again = record_of(parse_settings(stage, [str(file), "--output_dir", str(tmp_path / "run")]))
    assert again == record


def test_the_args_of_a_run_from_before_recipes_are_the_papers(tmp_path):
    record = record_of(settings(tmp_path, "--corpus", "folder", "--data_dir", tmp_path, "--recipe", "paper"))
    for part, names in (("corpus", ("recipe", "refit")),
                        ("method", ("probe_start", "layer_weights", "layer_statistics")),
                        ("training", ("min_updates", "layer_decay"))):  # fmt: skip
        for name in names:
            del record[part][name]
    file = tmp_path / "args.json"
    file.write_text(json.dumps(record))
    parsed = parse_settings(Stage1, [str(file), "--output_dir", str(tmp_path / "run")])
    assert (parsed.args.num_train_epochs, parsed.args.learning_rate, parsed.args.min_updates) == (200, 1e-4, 0)
    assert not (parsed.stage.probe_start or parsed.stage.layer_weights or parsed.corpus.refit)


def test_the_args_of_a_run_of_a_smaller_recipe_give_no_more_than_it_had(tmp_path):
    record = record_of(settings(tmp_path, "--corpus", "folder", "--data_dir", tmp_path))
    del record["method"]["layer_statistics"]
    record["training"]["augment"] = None
    file = tmp_path / "args.json"
    file.write_text(json.dumps(record))
    parsed = parse_settings(Stage1, [str(file), "--output_dir", str(tmp_path / "run")])
    assert parsed.stage.probe_start and not (parsed.stage.layer_statistics or parsed.args.augment)
