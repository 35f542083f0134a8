"""The default command trains what the corpus has, and says what it leaves out; what was asked for still stops."""

import json

import pandas as pd
import pytest
from helpers.tiny import check_refused, run_flags, run_script, write_corpus

from ser_mtl.training.stage import Stage1, Stage2

SHORT = {"num_train_epochs": 1, "selection": "last"}


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A corpus without texts and styles, in which all are women."""
    folder = write_corpus(tmp_path_factory.mktemp("plain") / "plain", leave_out=["text", "style"])
    table = pd.read_csv(folder / "metadata.csv").assign(gender="female")
    table.to_csv(folder / "metadata.csv", index=False)
    return folder


@pytest.fixture(scope="module")
def stage1(plain, encoder, tmp_path_factory):
    output = tmp_path_factory.mktemp("runs") / "stage1"
    ended = run_script("run_stage1", run_flags(plain, output, encoder=encoder, **SHORT))
    assert ended.code == 0, ended.stderr
    assert ended.stderr.count("--tasks: asr is left out: no utterance of the corpus is annotated") == 1
    return output


def test_a_task_that_nobody_annotated_is_left_out(stage1):
    record = json.loads((stage1 / "args.json").read_text())
    assert record["method"]["tasks"] == ["emotion"] and record["tasks_left_out"] == ["asr"]
    assert json.loads((stage1 / "results.json").read_text())["tasks"] == ["emotion"]


def test_stage_2_trains_emotion_alone_without_fusion(plain, stage1, tmp_path):
    ended = run_script("run_stage2", run_flags(plain, tmp_path / "stage2", stage1=stage1, **SHORT))
    assert ended.code == 0, ended.stderr
    assert "gender is left out: all utterances have the same label, 'female'" in ended.stderr
    assert "style is left out: no utterance" in ended.stderr
    method = json.loads((tmp_path / "stage2" / "args.json").read_text())["method"]
    assert (method["tasks"], method["fusion"], method["scl"]) == (["emotion"], "none", "none")


def test_the_same_command_finds_its_finished_run(plain, encoder, stage1):
    ended = run_script("run_stage1", run_flags(plain, stage1, encoder=encoder, **SHORT))
    assert ended.code == 0 and "Next: " in ended.stdout and "training" not in ended.stderr


def test_a_task_that_was_asked_for_stops(plain, encoder, stage1, tmp_path):
    flags = run_flags(plain, tmp_path / "out", encoder=encoder, tasks=["emotion", "asr"], **SHORT)
    check_refused("run_stage1", flags, "--tasks asr", "is annotated for it")
    flags = run_flags(plain, tmp_path / "out", stage1=stage1, scl="norm", **SHORT)
    check_refused("run_stage2", [*flags], "--scl norm", "needs emotion and another task")


def test_a_corpus_without_emotions_names_the_tasks_that_it_has(tmp_path):
    folder = write_corpus(tmp_path / "values", leave_out=["emotion"])
    table = pd.read_csv(folder / "metadata.csv").assign(arousal=range(40), valence=3)
    table.to_csv(folder / "metadata.csv", index=False)
    for script in ("run_stage1", "run_stage2"):
        flags = run_flags(folder, tmp_path / "out", **SHORT)
        check_refused(script, flags, "no utterance has an emotion (column 'emotion')", "--tasks activation")
    shown = run_script("corpus", [folder]).stdout
    assert "emotion: missing in all rows" in shown and shown.rstrip().endswith("--fold 1 --tasks activation")
    table.drop(columns="arousal").assign(emotion="sad").to_csv(folder / "metadata.csv", index=False)
    check_refused("run_stage1", flags, "all utterances have the same emotion, 'sad'", "--data_dir A B")
    assert "Not as it is: all utterances have the same emotion" in run_script("corpus", [folder]).stdout


def test_only_what_nobody_asked_for_follows_the_corpus():
    stage = Stage2()
    stage.leave_out({"style"})
    assert (stage.tasks, stage.fusion, stage.scl) == (["emotion", "gender"], "concat", "cos")
    stage.leave_out({"gender"})
    assert (stage.tasks, stage.fusion, stage.scl) == (["emotion"], "none", "none")
    asked = Stage1(tasks=["emotion", "asr"])
    asked.leave_out({"asr"})
    assert asked.tasks == ["emotion", "asr"] and Stage1().tasks == ["emotion", "asr"]


def test_an_official_split_needs_no_fold_and_says_who_is_on_both_sides(encoder, tmp_path):
    folder = write_corpus(tmp_path / "official")
    table = pd.read_csv(folder / "metadata.csv")
    table["split"] = ["test" if n % 4 == 0 else "train" for n in range(len(table))]
    table.to_csv(folder / "metadata.csv", index=False)
    flags = run_flags(folder, tmp_path / "out", encoder=encoder, dev="none", tasks=["emotion"], **SHORT)
    del flags[flags.index("--fold") : flags.index("--fold") + 2]
    ended = run_script("run_stage1", flags)
    assert ended.code == 0, ended.stderr
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["fold"] == 1 and results["leaks"]["test_speakers_in_train"] == {"speakers": 10, "utterances": 10}
    note = "10 of 10 test utterances are by 10 speakers of train"
    assert note in " ".join(ended.stdout.split())
    assert note in " ".join((tmp_path / "out" / "README.md").read_text().split())


def test_a_map_is_part_of_the_run(encoder, good_corpus, tmp_path):
    flags = run_flags(good_corpus, tmp_path / "out", encoder=encoder, map=["sad=blue"], tasks=["emotion"], **SHORT)
    ended = run_script("run_stage1", flags)
    assert ended.code == 0, ended.stderr
    assert json.loads((tmp_path / "out" / "results.json").read_text())["labels"] == {"emotion": ["angry", "blue"]}
    check_refused("run_stage1", [*flags, "--map", "sad=low"], "--map ['sad=blue'], not ['sad=low']")


def test_a_described_corpus_trains_both_stages_under_its_name(encoder, tmp_path, monkeypatch):
    """Stage 2 finds stage 1 by the name, and its check of what stage 1 was trained on finds nothing wrong."""
    write_corpus(tmp_path / "data")
    (tmp_path / "data" / "metadata.csv").unlink()
    (tmp_path / "calls.toml").write_text('audio = "{speaker}_{emotion}_{style}"')
    monkeypatch.chdir(tmp_path)
    flags = [
        "--corpus",
        "calls.toml",
        "--data_dir",
        "data",
        "--fold",
        1,
        "--selection",
        "last",
        "--num_train_epochs",
        1,
    ]
    for words in (["run_stage1", "--encoder", encoder], ["run_stage2"]):
        ended = run_script(words[0], [*flags, *words[1:]])
        assert ended.code == 0, ended.stderr
    results = json.loads((tmp_path / "runs/calls/stage2/fold1/results.json").read_text())
    assert results["corpus"] == "calls" and results["tasks"] == ["emotion", "style"]
    assert json.loads((tmp_path / "runs/calls/stage2/fold1/args.json").read_text())["corpus"]["corpus"] == str(
        tmp_path / "calls.toml"
    )
