"""The Python interface to training gives what the scripts give."""

import json
import warnings
from pathlib import Path

import pytest
from helpers.tiny import run_flags, run_script, write_corpus
from transformers import TrainingArguments

from ser_mtl.corpora import load_corpus
from ser_mtl.corpora.folds import split
from ser_mtl.errors import UserError
from ser_mtl.files import read_json
from ser_mtl.hub.export import merged_model
from ser_mtl.metrics import METRIC, Metric
from ser_mtl.model.quiet_peft import quiet_peft
from ser_mtl.training.arguments import SerMtlArguments
from ser_mtl.training.stage import Stage1, Stage2
from ser_mtl.training.start import start_of
from ser_mtl.training.trainer import SerMtlTrainer


def parts_of(corpus, dev: str = "dialog"):
    return split(load_corpus("folder", corpus), fold=1, dev=dev)


def short_run(output, **more) -> SerMtlArguments:
    """The arguments of `helpers.tiny.run_flags`."""
    return SerMtlArguments(output_dir=str(output), **{"num_train_epochs": 2, "per_device_train_batch_size": 8} | more)


@pytest.fixture(scope="module")
def trained(good_corpus, encoder, tmp_path_factory) -> SerMtlTrainer:
    """A stage 1 trained from Python, as the fixture `finished` is by its script."""
    trainer = SerMtlTrainer(
        Stage1(encoder=str(encoder)), short_run(tmp_path_factory.mktemp("python") / "out"), parts_of(good_corpus)
    )
    trainer.train()
    return trainer


def test_the_trainer_gives_the_metrics_of_the_script(trained, finished):
    scores = trained.evaluate(trained.parts["test"])
    expected = json.loads((finished / "results.json").read_text())["test"]["all"]
    for task, values in (("emotion", ("ua", "wa", "macro_f1")), ("asr", ("wer", "cer"))):
        for key in values:
            assert scores[f"eval_{task}_{key}"] == expected[task][key]


def test_a_model_that_the_trainer_saved_loads_and_is_calibrated(trained, finished):
    from modeling_ser_mtl import SerMtlModel

    config = SerMtlModel.from_pretrained(trained.args.output_dir).config
    assert config.temperature == json.loads((finished / "results.json").read_text())["calibration"]["temperature"]


def test_new_arguments_leave_the_trainers_that_are_there_as_they_were(trained, tmp_path):
    short_run(tmp_path / "out")
    assert trained.accelerator.mixed_precision == "no" and trained.accelerator.num_processes == 1


def test_stage_two_starts_from_a_stage_one_trained_from_python(trained, good_corpus, tmp_path):
    stage = Stage2(stage1=trained.args.output_dir)
    trainer = SerMtlTrainer(stage, short_run(tmp_path / "out"), parts_of(good_corpus))
    trainer.train()
    assert {"eval_emotion_ua", "eval_gender_ua", "eval_style_ua"} <= set(trainer.evaluate(trainer.parts["test"]))
    trainer.finish()
    assert run_script("export", [tmp_path / "out", "--to", "merged"]).code == 0
    assert list((tmp_path / "out").glob("checkpoint-*")) == []


def test_another_corpus_can_be_evaluated(trained, tmp_path):
    other = split(load_corpus("folder", write_corpus(tmp_path / "other")), fold=2, dev="none")["test"]
    other = other.map(lambda row: {"id": f"other/{row['id']}"})
    scores = trained.evaluate(other)
    rows = trained.rows(*trained.predict(other)[:2])
    assert sorted(row["id"] for row in rows) == sorted(other["id"])
    right = [row["emotion"]["predicted"] == row["emotion"]["label"] for row in rows]
    assert scores["eval_emotion_wa"] == pytest.approx(sum(right) / len(right))


def without_times(results: dict) -> dict:
    return {name: value for name, value in results.items() if name not in ("minutes", "audio_seconds_per_second")}


def test_a_finished_trainer_leaves_what_its_script_leaves(trained, finished, hub):
    trained.evaluate(trained.parts["test"])  # must not get into the history
    results, output = trained.finish(), Path(trained.args.output_dir)
    assert results == read_json(output / "results.json")
    assert without_times(results) == without_times(read_json(finished / "results.json"))
    assert {path.name for path in output.iterdir()} == {path.name for path in finished.iterdir()}
    assert (output / "predictions.jsonl").read_bytes() == (finished / "predictions.jsonl").read_bytes()
    assert (output / "training_curves.png").read_bytes() == (finished / "training_curves.png").read_bytes()
    assert "# Speech emotion recognition, stage 1, fold 1" in (output / "README.md").read_text()
    assert run_script("publish", [output, "--repo_id", "ada/python"]).code == 0


def test_a_folder_of_another_run_is_refused_before_training(trained, good_corpus, encoder):
    args = short_run(trained.args.output_dir, learning_rate=3e-4)
    trainer = SerMtlTrainer(Stage1(encoder=str(encoder)), args, parts_of(good_corpus))
    with pytest.raises(UserError, match=r"another run .*--learning_rate 0\.0001, not 0\.0003"):
        trainer.train()


def test_a_selection_on_dev_needs_dev(good_corpus, encoder, tmp_path):
    with pytest.raises(UserError, match="--selection dev needs a development set"):
        SerMtlTrainer(Stage1(encoder=str(encoder)), short_run(tmp_path), parts_of(good_corpus, dev="none"))


def test_a_trainer_that_has_not_trained_has_nothing_to_finish(good_corpus, encoder, tmp_path):
    trainer = SerMtlTrainer(Stage1(encoder=str(encoder)), short_run(tmp_path / "out"), parts_of(good_corpus))
    with pytest.raises(UserError, match=r"finish: .* call train\(\) first"):
        trainer.finish()
    assert not (tmp_path / "out").exists()


def test_a_script_does_not_start_on_a_stage_one_that_heard_the_test(trained, good_corpus, tmp_path):
    ended = run_script("run_stage2", run_flags(good_corpus, tmp_path / "out", stage1=trained.args.output_dir, fold=2))
    assert (ended.code, "use the stage 1 of the same fold" in ended.stderr) == (2, True)


A_STAGE, AN_OUTPUT = Stage1(), {"output_dir": "out"}
WRONG = {
    "a folder for a corpus": (lambda parts: split("my_recordings", fold=1), "corpus: must be utterances"),
    "a number for folders": (lambda parts: load_corpus("folder", 3), "--data_dir 3: must be a folder, or a list"),
    "a class for a stage": (lambda parts: SerMtlTrainer(Stage1, None, parts), "stage: must be ser_mtl.Stage1(...) or"),
    "stock arguments": (
        lambda parts: SerMtlTrainer(A_STAGE, TrainingArguments(**AN_OUTPUT), parts),
        "args: must be ser_mtl.SerMtlArguments(...), not TrainingArguments",
    ),
    "a corpus for parts": (
        lambda parts: SerMtlTrainer(A_STAGE, SerMtlArguments(**AN_OUTPUT), parts["train"]),
        "parts: must be what ser_mtl.split returns",
    ),
    "parts without paths": (
        lambda parts: SerMtlTrainer(
            A_STAGE, SerMtlArguments(**AN_OUTPUT), {"train": parts["train"].remove_columns(["path", "id"])}
        ),
        "parts['train']: lacks the columns id, path",
    ),
    "no stage 1": (
        lambda parts: SerMtlTrainer(Stage2(), SerMtlArguments(**AN_OUTPUT), parts),
        "--stage1: is missing; name the folder or Hub id",
    ),
    "no output folder": (lambda parts: SerMtlArguments(), "--output_dir: is missing; name the folder of the run"),
    "a number for a name": (lambda parts: Stage1(encoder=3), "--encoder 3: must be text or None, not int"),
    "text for a switch": (lambda parts: Stage1(soft_labels="yes"), "--soft_labels 'yes': must be True or False"),
    "half a neuron": (lambda parts: Stage1(embedding_dim=1.5), "--embedding_dim 1.5: must be a whole number"),
    "no tasks": (lambda parts: Stage1(tasks=[]), "--tasks: names no task"),
    "nested tasks": (lambda parts: Stage1(tasks=[["emotion"]]), "--tasks ['emotion']: must be among"),
}


@pytest.mark.parametrize("mistake", WRONG)
def test_a_mistake_in_python_is_one_line_that_names_the_argument(mistake, good_corpus):
    call, said = WRONG[mistake]
    with pytest.raises(UserError) as caught:
        call(parts_of(good_corpus))
    assert str(caught.value).startswith(said)


@pytest.mark.filterwarnings("error::FutureWarning")
def test_making_and_merging_adapters_is_quiet_and_other_warnings_are_not(trained, finished2, good_corpus):
    start_of(Stage2(stage1=trained.args.output_dir), parts_of(good_corpus))
    merged_model(finished2)
    with pytest.raises(FutureWarning), quiet_peft():
        warnings.warn("another", FutureWarning, stacklevel=1)


def test_only_utterances_can_be_evaluated(trained):
    for given in ("test", trained.parts, trained.parts["test"].remove_columns("id")):
        with pytest.raises(UserError, match="evaluate, predict: "):
            trained.evaluate(given)


def test_names_may_be_paths_and_tasks_a_tuple(tmp_path):
    stage = Stage1(encoder=tmp_path, tasks=("asr", "emotion"))
    assert (stage.encoder, stage.tasks) == (str(tmp_path), ["emotion", "asr"])


@pytest.mark.parametrize("lower", [True, False])
def test_the_table_of_metrics_says_which_way_is_better(lower, monkeypatch, tmp_path):
    monkeypatch.setitem(METRIC, "emotion_new", Metric("emotion", "new", "new", "", higher_is_better=not lower))
    for name in ("emotion_new", "eval_emotion_new"):
        assert short_run(tmp_path, metric_for_best_model=name).greater_is_better is not lower
    for name, better in (("loss", False), ("eval_loss", False), ("asr_wer", False), ("emotion_ua", True)):
        assert short_run(tmp_path, metric_for_best_model=name).greater_is_better is better
