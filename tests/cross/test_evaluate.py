"""`ser-mtl evaluate`: the scores of a run on its own fold, the arithmetic of others, and what it refuses."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
from datasets import Dataset
from helpers.described_trees import write_names
from helpers.tiny import PITCHES, SAMPLING_RATE, Ended, check_one_line, run_script, tone, write_corpus
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, recall_score

from ser_mtl.commands.predict import last_run
from ser_mtl.corpora.loading import load_corpus
from ser_mtl.cross.choice import Chosen, choose, without_heard
from ser_mtl.cross.evaluate import tasks_to_score
from ser_mtl.cross.heard import Heard, heard_by
from ser_mtl.cross.report import check_folder
from ser_mtl.errors import Notice, UserError
from ser_mtl.evaluation.predictions import read_predictions
from ser_mtl.files import write_json
from ser_mtl.hub.names import hashed, without_names_in_split
from ser_mtl.inference.recognizer import load
from ser_mtl.training.heard import utterances_heard


@pytest.fixture(scope="module")
def others(tmp_path_factory) -> Path:
    """Another corpus, with an emotion that the models of `finished` do not know. Not to be changed."""
    folder = write_corpus(tmp_path_factory.mktemp("corpora") / "others", ("neutral", "sad", "angry"))
    for file in folder.glob("*.wav"):
        soundfile.write(file, soundfile.read(file)[0][::-1], SAMPLING_RATE)
    return folder


def evaluate(model: object, corpus: Path, *more: object) -> Ended:
    return run_script("evaluate", [model, "--corpus", "folder", "--data_dir", corpus, *more])


def evaluated(model: object, corpus: Path, output: Path, *more: object) -> tuple[dict, list[dict], Ended]:
    ended = evaluate(model, corpus, "--output_dir", output, *more)
    assert ended.code == 0, ended.stderr
    return json.loads((output / "results.json").read_text()), read_predictions(output / "predictions.jsonl"), ended


def copied(corpus: Path, folder: Path, rename: str = "", drop: object = ()) -> Path:
    """A copy of a corpus with other file names, and without these rows of its table."""
    folder.mkdir(parents=True)
    table = pd.read_csv(corpus / "metadata.csv").drop(index=list(drop))
    for name in table["file_name"]:
        shutil.copy(corpus / name, folder / f"{rename}{name}")
    table["file_name"] = rename + table["file_name"]
    table.to_csv(folder / "metadata.csv", index=False)
    return folder


def test_a_models_own_fold_gets_the_scores_of_its_run(finished2, good_corpus, tmp_path):
    results, rows, ended = evaluated(finished2, good_corpus, tmp_path / "out", "--fold", 1)
    own = json.loads((finished2 / "results.json").read_text())
    assert results["test"] == own["test"] and set(own["test"]["all"]) == {"n", "emotion", "gender", "style", "asr"}
    assert results["calibration"]["test"] == pytest.approx(own["calibration"]["test"], abs=1e-4)
    known = {row["id"]: row for row in read_predictions(finished2 / "predictions.jsonl")}
    assert [row["id"] for row in rows] == sorted(known)
    for row in rows:
        before = known[row["id"]]
        assert (row["speaker"], row["asr"]) == (before["speaker"], before["asr"])
        for task in ("emotion", "gender", "style"):
            assert row[task]["probabilities"] == pytest.approx(before[task]["probabilities"], abs=1e-5)
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert written == {"results.json", "predictions.jsonl", "README.md", "confusion_matrix.png", "reliability.png"}
    report = (tmp_path / "out/README.md").read_text()
    assert "Trained on good, tested on good (fold 1)" in report and str(tmp_path) not in report
    assert "over speakers, 2 in all" in ended.stdout


def test_scores_on_another_corpus_are_those_of_scikit_learn(finished2, others, tmp_path):
    results, rows, ended = evaluated(finished2, others, tmp_path / "out", "--map", "neutral=")
    answers = [(row["emotion"]["label"], row["emotion"]["predicted"]) for row in rows]
    labels, predicted = zip(*answers, strict=True)
    emotion = results["test"]["all"]["emotion"]
    assert results["test"]["all"]["n"] == len(rows) == 40
    assert emotion["ua"] == pytest.approx(recall_score(labels, predicted, average="macro"))
    assert emotion["wa"] == pytest.approx(accuracy_score(labels, predicted))
    assert emotion["macro_f1"] == pytest.approx(f1_score(labels, predicted, average="macro"))
    assert emotion["confusion_matrix"] == confusion_matrix(labels, predicted, labels=["angry", "sad"]).tolist()
    assert set(results["test"]) == {"all", "improvised", "scripted"}
    assert results["left_out"] == ["20 utterances are 'neutral' (--map)"]
    assert "20 utterances are 'neutral' (--map)" in " ".join(ended.stdout.split())
    low, high = results["intervals"]["all"]["emotion"]["ua"]
    assert 0 <= low <= emotion["ua"] <= high <= 1
    assert results["system"]["trained_on"] == "good" and results["corpus"] == "others" and results["checked"]


def test_an_emotion_that_the_model_lacks_is_refused_with_the_map(finished, others, tmp_path):
    check_one_line(evaluate(finished, others), "evaluate", "'neutral'", "angry, sad", "--map neutral=")


def test_a_label_that_may_mean_the_same_is_mapped_to_it():
    corpus = Dataset.from_dict({"emotion": ["anger", "very bad"], "gender": ["f", "f"], "text": [None, None]})
    with pytest.raises(UserError, match="--map anger=angry 'very bad='"):
        tasks_to_score(corpus, {"emotion": ["angry", "sad"]}, False)


def test_another_task_with_other_labels_is_left_out_and_named():
    corpus = Dataset.from_dict({"emotion": ["angry", None], "gender": ["Mann", "female"], "text": [None, None]})
    with pytest.warns(Notice, match="gender 'Mann'.*gender is not scored.*--map gender:Mann="):
        scored = tasks_to_score(corpus, {"emotion": ["angry", "sad"], "gender": ["female", "male"]}, False)
    assert scored == {"emotion": ["angry", "sad"]}


def test_a_corpus_without_any_label_of_the_model_is_refused():
    corpus = Dataset.from_dict({"emotion": [None], "text": ["well"]})
    assert tasks_to_score(corpus, {"emotion": ["angry", "sad"]}, True) == {}
    with pytest.raises(UserError, match="nothing to score"):
        tasks_to_score(corpus, {"emotion": ["angry", "sad"]}, False)


# -------------------------------------------------------------------------------------- what the model was trained on


def test_utterances_of_the_training_are_refused_by_name(finished, good_corpus, tmp_path):
    split = json.loads((finished / "split.json").read_text())
    known = len(split["train"]["ids"]) + len(split["dev"]["ids"])
    named = (f"trained on {known} of the 40 utterances", "--fold 1", f"--part unseen takes the {40 - known}")
    check_one_line(evaluate(finished, good_corpus), "evaluate", finished, *named)
    check_one_line(evaluate(finished, good_corpus, "--fold", 2), "evaluate", "8 of the 8", "--fold 1")
    results, rows, _ = evaluated(finished, good_corpus, tmp_path / "out", "--part", "unseen")
    assert {row["id"] for row in rows} == set(split["test"]["ids"])
    assert results["part"] == "unseen" and f"{known} utterances of the model's training" in results["left_out"][0]


def test_recordings_of_the_training_are_refused_under_other_names(finished, good_corpus, tmp_path):
    copy = copied(good_corpus, tmp_path / "elsewhere", rename="x_")
    check_one_line(evaluate(finished, copy), "evaluate", "trained on 32 of the 40", "--part unseen takes the 8")
    _, rows, _ = evaluated(finished, copy, tmp_path / "out", "--part", "unseen")
    assert {row["id"].removeprefix("x_") for row in rows} == set(
        json.loads((finished / "split.json").read_text())["test"]["ids"]
    )


def test_new_utterances_by_speakers_of_the_training_are_refused(finished, good_corpus, tmp_path):
    split = json.loads((finished / "split.json").read_text())
    folder = copied(good_corpus, tmp_path / "more")
    table = pd.read_csv(folder / "metadata.csv")
    heard = table[table["file_name"].isin(split["train"]["ids"])].iloc[0]
    for name in table["file_name"]:  # new recordings of all but one utterance
        if name != heard["file_name"]:
            soundfile.write(folder / name, tone(PITCHES["sad"] + 7, 0.35), SAMPLING_RATE)
    check_one_line(evaluate(finished, folder), "evaluate", "1 of the 40", "speakers of 3 more", "takes the 36")
    _, rows, _ = evaluated(finished, folder, tmp_path / "out", "--part", "unseen")
    assert len(rows) == 36 and heard["speaker"] not in {row["speaker"] for row in rows}


def test_speakers_of_the_same_corpus_are_known_without_a_shared_utterance(tmp_path):
    song = write_names(
        tmp_path / "song", [f"Actor_0{n}/03-02-0{e}-01-01-01-0{n}.wav" for n in (1, 2, 3) for e in (3, 4)]
    )
    corpus = load_corpus("ravdess", song, check_counts=False)
    for known in ("actor01", hashed("actor01")):
        heard = Heard(speakers={f"ravdess/{known}", "savee/actor02"})
        with pytest.raises(UserError, match=r"the speakers of 2 of the 6 utterances.*--part unseen takes the 4"):
            choose(corpus, [], None, None, heard, "it")
        assert set(choose(corpus, [], None, "unseen", heard, "it").corpus["speaker"]) == {"actor02", "actor03"}


def test_a_run_records_the_speakers_of_its_training(finished, good_corpus):
    split = json.loads((finished / "split.json").read_text())
    corpus = load_corpus("folder", good_corpus)
    known = {*split["train"]["speakers"], *split["dev"]["speakers"]}
    assert (
        heard_by(str(finished)).speakers_in(corpus) == known == set(corpus["speaker"]) - set(split["test"]["speakers"])
    )
    assert without_names_in_split(split)["train"]["speakers"] == sorted(map(hashed, split["train"]["speakers"]))


def test_what_stage_1_was_trained_on_counts_for_stage_2(finished, finished2, good_corpus, tmp_path):
    run = shutil.copytree(finished2, tmp_path / "stage2")
    split = json.loads((run / "split.json").read_text())
    for part in ("train", "dev"):
        split[part] = {"ids": [], "sha256": "", "audio": []}
    (run / "split.json").write_text(json.dumps(split))
    assert heard_by(str(run)).audio == heard_by(str(finished)).audio != set()
    check_one_line(evaluate(run, good_corpus), "evaluate", "trained on 32 of the 40")


def test_a_published_model_with_hashed_names_is_checked_too(hub, finished, good_corpus, tmp_path):
    stage1 = shutil.copytree(finished, tmp_path / "stage1")
    assert run_script("publish", [stage1, "--repo_id", "ada/stage1", "--public"]).code == 0
    heard = heard_by("ada/stage1")
    assert not any(".wav" in name for name in heard.names) and heard.unknown == []
    assert len(heard.by_name(load_corpus("folder", good_corpus))) == 32
    check_one_line(evaluate("ada/stage1", good_corpus), "evaluate", "ada/stage1", "32 of the 40")


def test_a_model_without_a_record_of_its_training_is_said(finished, others, tmp_path):
    run = shutil.copytree(finished, tmp_path / "run")
    (run / "split.json").unlink()
    results, _, ended = evaluated(run, others, tmp_path / "out", "--map", "neutral=")
    assert not results["checked"] and "may have been trained on this corpus" in ended.stderr
    assert "not checked" in ended.stdout


def test_speakers_of_an_official_test_set_are_counted_and_not_refused():
    columns = {
        "id": ["a", "b", "c"],
        "speaker": ["x", "x", "y"],
        "fold": [None, 1, 1],
        "split": ["train", "test", "test"],
    }
    test = Dataset.from_dict({name: values[1:] for name, values in columns.items()})
    chosen = Chosen(test, "test", [])
    assert without_heard(chosen, {"a"}, {"x"}, None, "it") == chosen
    with pytest.raises(UserError, match="the speakers of 1 of the 2"):
        without_heard(chosen._replace(part="all"), {"a"}, {"x"}, None, "it")


# ------------------------------------------------------------------------------------------------- parts and mistakes


def test_an_official_split_gives_its_test_set(finished, others, tmp_path):
    folder = copied(others, tmp_path / "official")
    table = pd.read_csv(folder / "metadata.csv")
    table["split"] = ["test" if name.startswith("f1") else "train" for name in table["file_name"]]
    table.to_csv(folder / "metadata.csv", index=False)
    results, rows, _ = evaluated(finished, folder, tmp_path / "out", "--map", "neutral=")
    assert results["part"] == "test" and {row["speaker"] for row in rows} == {"f1"} and len(rows) == 4
    assert results["intervals"]["all"] == {}  # one speaker gives none
    check_one_line(evaluate(finished, folder, "--map", "neutral=", "--fold", 1), "evaluate", "--fold 1", "--part test")


def test_mistakes_are_one_line(finished, others, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").write_text("mine")
    for words, named in (
        (["--output_dir", tmp_path / "full"], "--output_dir"),
        (["--part", "test"], "--part test"),
        (["--fold", 7], "--fold 7"),
        (["--fold", 1, "--part", "dev"], "--part dev"),
        (["--device", "toaster"], "device toaster"),
    ):
        check_one_line(evaluate(finished, others, "--map", "neutral=", *words), "evaluate", named)
    check_one_line(evaluate(tmp_path, others), "evaluate", tmp_path)
    check_one_line(run_script("evaluate", [finished]), "evaluate", "--corpus")
    assert (tmp_path / "full/file").read_text() == "mine"


def test_long_recordings_are_answered_in_segments_and_absent_classes_named(finished, tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline_ser_mtl.UTTERANCE", 4 * SAMPLING_RATE)
    monkeypatch.setattr("segments_ser_mtl.WINDOW", 3 * SAMPLING_RATE)
    folder = tmp_path / "long"
    folder.mkdir()
    samples = np.random.default_rng(1).normal(0, 0.1, 7 * SAMPLING_RATE)
    for name in ("a.wav", "b.wav"):
        soundfile.write(folder / name, samples if name == "a.wav" else samples[::-1], SAMPLING_RATE)
    (folder / "metadata.csv").write_text("file_name,emotion,speaker\na.wav,sad,x\nb.wav,sad,y\n")
    results, rows, ended = evaluated(finished, folder, tmp_path / "out")
    recognizer = load(finished)
    for row in rows:
        answer = recognizer(folder / row["id"])
        assert len(answer["segments"]) > 1
        assert row["emotion"]["probabilities"] == pytest.approx(answer["emotion"]["probabilities"], abs=1e-5)
    assert results["absent"] == ["angry"] and "has no angry: UA is over the other 1" in " ".join(ended.stdout.split())


def test_an_evaluation_or_an_export_is_not_the_run_that_finished_last(finished, tmp_path, monkeypatch):
    shutil.copytree(finished, tmp_path / "runs/folder/stage1/fold1")
    (tmp_path / "runs/on").mkdir()
    (tmp_path / "runs/on/results.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    shutil.copytree(finished, tmp_path / "runs/folder/stage1/fold1/merged")  # of `ser-mtl export`
    assert last_run() == "runs/folder/stage1/fold1"


def test_a_record_that_says_nothing_of_the_training_is_none(tmp_path):
    record = {"corpus": {"corpus": "folder", "data_dir": ["x"]}}
    for split, found in (({}, None), ({"train": {"ids": ["a"], "sha256": ""}}, {"train": {"x/a"}, "dev": set()})):
        write_json(tmp_path / "args.json", record)
        write_json(tmp_path / "split.json", split)
        assert utterances_heard(str(tmp_path), by_audio=False) == found


def test_an_evaluation_that_was_cut_short_is_done_again_and_other_files_are_left(tmp_path):
    check_folder(tmp_path)
    for name in ("predictions.jsonl", ".partial.reliability.png"):
        (tmp_path / name).touch()
    check_folder(tmp_path)
    for other in ("results.json", "notes.txt"):
        (tmp_path / other).touch()
        with pytest.raises(UserError, match="holds files already"):
            check_folder(tmp_path)
        (tmp_path / other).unlink()
    (tmp_path / "predictions.jsonl").rename(tmp_path / "README.md")
    with pytest.raises(UserError, match="holds files already"):
        check_folder(tmp_path)
