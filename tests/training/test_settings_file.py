"""Settings from a file: a yaml, or the args.json of a run; flags beside it win. And the two lengths of help."""

import json

import pytest
import yaml
from helpers.tiny import check_one_line, run_flags, run_script

from ser_mtl.corpora.reading import read_audio
from ser_mtl.errors import UserError
from ser_mtl.recipe import StageParser, parse_settings
from ser_mtl.training.stage import Stage1, Stage2
from ser_mtl.training.stage2_start import read_stage1


def write_yaml(folder, **settings) -> str:
    (folder / "run.yaml").write_text(yaml.safe_dump(settings))
    return str(folder / "run.yaml")


def test_a_yaml_gives_the_flags_and_flags_beside_it_win(tmp_path):
    file = write_yaml(
        tmp_path, fold=2, corpus="folder", data_dir=["a", "b"], tasks=["emotion", "gender"], learning_rate="2e-4",
        bf16=False, hub_private_repo=False, num_train_epochs=7, lr_scheduler_kwargs={"num_cycles": 2},
    )  # fmt: skip
    corpus, stage, args, _ = parse_settings(Stage1, [file, "--num_train_epochs", "3", "--data_dir", "c"])
    assert (corpus.fold, corpus.data_dir, stage.tasks) == (2, ["c"], ["emotion", "gender"])
    assert (args.learning_rate, args.num_train_epochs, args.hub_private_repo) == (2e-4, 3, False)
    assert args.lr_scheduler_kwargs == {"num_cycles": 2}


def test_the_args_json_of_a_run_gives_the_same_run_again(finished, tmp_path):
    again = parse_settings(Stage1, [str(finished / "args.json"), "--output_dir", str(tmp_path / "again")])
    record = json.loads((finished / "args.json").read_text())
    assert vars(again.corpus) == record["corpus"]
    assert {name: value for name, value in record["method"].items() if name in vars(again.stage)} == vars(again.stage)
    for name in ("seed", "learning_rate", "num_train_epochs", "bf16", "warmup_steps", "selection", "adam_beta2"):
        assert getattr(again.args, name) == record["training"][name], name
    assert again.args.utterances_per_update == record["training"]["batch_size"]


def test_a_run_started_from_its_own_args_json_is_that_run(finished):
    weights = finished / "model.safetensors"
    written = weights.stat().st_mtime_ns
    ended = run_script("run_stage1", [finished / "args.json", "--output_dir", finished])
    assert ended.code == 0, ended.stderr
    assert "emotion" in ended.stdout and weights.stat().st_mtime_ns == written  # shown, not trained again


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"learning_rat": 1e-4}, "'learning_rat' is not a flag (did you mean learning_rate?)"),
        ({"fold": 9}, "--fold 9"),
        ({"tasks": "emotion age"}, "--tasks"),
    ],
)
def test_a_mistake_in_the_file_is_one_line(tmp_path, settings, said):
    check_one_line(run_script("run_stage1", [write_yaml(tmp_path, **{"fold": 1} | settings)]), "run_stage1", said)


@pytest.mark.parametrize("content", ["- a list", "{broken", ""])
def test_a_file_that_holds_no_settings_is_named(tmp_path, content):
    (tmp_path / "run.yaml").write_text(content)
    check_one_line(run_script("run_stage1", [tmp_path / "run.yaml"]), "run_stage1", tmp_path / "run.yaml")


def test_the_settings_of_the_other_stage_are_refused(finished):
    check_one_line(run_script("run_stage2", [finished / "args.json"]), "run_stage2", "stage-1 run", "run_stage1.py")


def test_a_mistyped_flag_is_named_with_the_one_meant(good_corpus, tmp_path):
    flags = ["--learning-rat", "1", *run_flags(good_corpus, tmp_path)]
    check_one_line(run_script("run_stage1", flags), "run_stage1", "--learning-rat", "did you mean --learning_rate?")
    check_one_line(run_script("run_stage1", ["--fodl", "1"]), "run_stage1", "--fodl", "did you mean --fold?")


@pytest.mark.parametrize("stage", [Stage1, Stage2])
def test_help_is_two_screens_of_own_flags(stage, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    StageParser(stage).print_help()
    text = capsys.readouterr().out
    assert len(text.splitlines()) <= 86
    for flag in ("--fold", "--tasks", "--scl", "--learning_rate X", "[0.0001]", "--selection", "--seed"):
        assert flag in text
    for flag in ("--fsdp", "--torch_compile", "--label_names", "--data-dir"):
        assert flag not in text


def test_help_all_has_the_flags_of_transformers_too():
    ended = run_script("run_stage1", ["--help_all"])
    assert ended.code == 0
    for flag in ("--fold", "--fsdp", "--torch_compile", "--label_names"):
        assert flag in ended.stdout


def test_a_file_or_folder_that_is_not_there_is_named_in_plain_words(tmp_path):
    check_one_line(run_script("run_stage1", [tmp_path / "run.yml"]), "run_stage1", "run.yml: no such file")
    with pytest.raises(
        UserError, match=r"--stage1 /moved/stage1/fold1: .*: there is no such folder, and it is no Hub id"
    ):
        read_stage1("/moved/stage1/fold1")
    with pytest.raises(UserError, match=r"nowhere.wav: no such file$"):
        read_audio(tmp_path / "nowhere.wav")
