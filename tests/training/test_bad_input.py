"""Pins what a mistake in flags, corpus or models gives: one line that names it, exit code 2, nothing written."""

import json
import math
import shutil
import subprocess
import sys
from pathlib import Path

import datasets
import numpy as np
import pandas as pd
import pytest
import soundfile
from helpers.tiny import (
    ROOT,
    SAMPLING_RATE,
    Ended,
    check_one_line,
    check_refused,
    run_flags,
    run_script,
    tone,
    write_corpus,
)
from safetensors.torch import load_file, save_file
from transformers import BertConfig, SEWConfig

from ser_mtl.errors import Notice, UserError
from ser_mtl.training.heard import check_never_heard
from ser_mtl.training.method import Earlier
from ser_mtl.training.stage1_start import feature_extractor_of

FIRST_WAV = "f1_angry_improvised.wav"  # of the folder that `write_corpus` makes


@pytest.fixture
def corpus(tmp_path) -> Path:
    """A corpus of the test's own, to damage."""
    return write_corpus(tmp_path / "mine")


def check_stage1_refused(tmp_path: Path, corpus: Path, encoder: Path, /, *named: object, **flags: object) -> None:
    check_refused("run_stage1", run_flags(corpus, tmp_path / "out", **{"encoder": encoder} | flags), *named)


# ------------------------------------------------------------------------------------------------------------- flags


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        ({"fold": 0}, ["--fold 0", "1 to 5"]),
        ({"fold": 6}, ["--fold 6", "1 to 5"]),
        ({"fold": "one"}, ["--fold", "'one'"]),
        ({"tasks": ["emotion", "age"]}, ["--tasks age", "emotion, gender, style, asr"]),
        ({"tasks": ["asr"]}, ["--tasks", "emotion must be among them"]),
        ({"corpus": "ravdes"}, ["--corpus 'ravdes'", "folder", "did you mean ravdess?"]),
        ({"dev": "none"}, ["--selection dev", "--dev dialog or session", "--selection last"]),
        ({"eval_strategy": "steps"}, ["--selection dev", "--eval_strategy", "--save_strategy"]),
        ({"eval_strategy": "no", "save_strategy": "no"}, ["--selection dev", "--eval_strategy", "--save_strategy"]),
        ({"lr_scheduler_type": "straight"}, ["--lr_scheduler_type", "straight"]),
        ({"warmup_steps": -1}, ["warmup_steps", "-1"]),
        ({"epochs": 3}, ["--epochs", "--help"]),
        ({"num_train_epochs": 0}, ["--num_train_epochs"]),
        ({"gradient_accumulation_steps": 0}, ["--gradient_accumulation_steps"]),
        ({"bottleneck_dim": 0}, ["--bottleneck_dim 0"]),
        ({"dropout": "nan"}, ["--dropout nan"]),
        ({"aux_weight": 1}, ["--aux_weight 1.0"]),
        ({"head_start": 10}, ["--head_start 10.0", "share"]),
        ({"seed": -1}, ["--seed -1"]),
        ({"learning_rate": -1}, ["--learning_rate -1.0"]),
        ({"adam_beta2": 1.5}, ["--adam_beta2 1.5"]),
        ({"dataloader_drop_last": True}, ["--dataloader_drop_last", "test utterances"]),
        ({"metric_for_best_model": "emotion_uar"}, ["--metric_for_best_model emotion_uar", "emotion_ua", "asr_wer"]),
        ({"metric_for_best_model": "gender_ua"}, ["--metric_for_best_model gender_ua"]),
        ({"accelerator_config": "nope.json"}, ["nope.json"]),
    ],
    ids=str,
)
def test_a_flag_that_makes_no_sense_is_named(tmp_path, good_corpus, encoder, flags, named):
    check_stage1_refused(tmp_path, good_corpus, encoder, *named, **flags)


def test_a_folder_corpus_needs_a_folder(tmp_path, encoder):
    flags = ["--fold", 1, "--corpus", "folder", "--encoder", encoder, "--output_dir", tmp_path / "out"]
    check_refused("run_stage1", flags, "--corpus folder", "--data_dir")


def test_processes_of_their_own_end_the_same_way(python, tmp_path):
    processes = {
        script: subprocess.Popen(
            [started, ROOT / f"{script}.py", "--fold", "6", "--output_dir", tmp_path / "out"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
        )
        for script, started in (("run_stage1", python), ("run_stage2", sys.executable))
    }
    for script, process in processes.items():
        stdout, stderr = process.communicate()
        check_one_line(Ended(process.returncode, stdout, stderr), script, "--fold 6")
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------------------------------------------------ corpora


def test_a_missing_folder_is_named(tmp_path, encoder):
    check_stage1_refused(tmp_path, tmp_path / "nowhere", encoder, "--data_dir", tmp_path / "nowhere")


def test_a_missing_iemocap_says_what_was_looked_for_and_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setenv("IEMOCAP_DIR", str(tmp_path / "corpora"))
    flags = ["--fold", 1, "--output_dir", tmp_path / "out"]
    advice = ["https://sail.usc.edu/iemocap/", "$IEMOCAP_DIR", "--data_dir", "make demo"]
    check_refused("run_stage1", flags, "Session1", tmp_path / "corpora", *advice)


def test_a_corpus_without_an_emotion_is_refused(tmp_path, encoder):
    corpus = write_corpus(tmp_path / "mine", leave_out=["emotion"])
    check_stage1_refused(tmp_path, corpus, encoder, "no utterance has an emotion", "'emotion'", "--data_dir")


def test_a_single_emotion_is_refused(tmp_path, encoder):
    corpus = write_corpus(tmp_path / "mine", emotions=["sad"])
    check_stage1_refused(tmp_path, corpus, encoder, "all utterances have the same emotion", "'sad'", "--data_dir")


@pytest.mark.parametrize(("task", "column"), [("asr", "text"), ("gender", "gender"), ("style", "style")])
def test_a_task_that_nothing_is_annotated_for_is_refused(tmp_path, encoder, task, column):
    corpus = write_corpus(tmp_path / "mine", leave_out=[column])
    check_stage1_refused(tmp_path, corpus, encoder, f"--tasks {task}", f"'{column}'", tasks=["emotion", task])


@pytest.mark.parametrize(("split", "fold"), [("test", 1), ("dev", 2)])
def test_a_split_without_an_emotion_is_refused_before_anything_is_trained(tmp_path, corpus, encoder, split, fold):
    edit_metadata(corpus, fold=folds_of_speakers, emotion=lambda row: "" if row.fold == fold else row.emotion)
    check_stage1_refused(tmp_path, corpus, encoder, "--tasks emotion", split, "--fold", dev="session")


def test_transcripts_of_the_test_alone_are_refused(tmp_path, corpus, encoder):
    edit_metadata(corpus, fold=folds_of_speakers, text=lambda row: row.text if row.fold == 1 else "")
    check_stage1_refused(tmp_path, corpus, encoder, "--tasks asr", "train", "'text'")


def test_a_fold_that_holds_nobody_is_refused(tmp_path, corpus, encoder):
    edit_metadata(corpus, fold=lambda row: min(4, folds_of_speakers(row)))
    check_stage1_refused(tmp_path, corpus, encoder, "--fold 5", "1, 2, 3, 4", fold=5)


def test_neither_speaker_nor_fold_is_refused(tmp_path, encoder):
    corpus = write_corpus(tmp_path / "mine", leave_out=["speaker"])
    check_stage1_refused(tmp_path, corpus, encoder, "metadata.csv", "'fold'", "'speaker'")


@pytest.mark.parametrize("again", [FIRST_WAV, f"./{FIRST_WAV}"])
def test_a_file_named_twice_is_refused(tmp_path, corpus, encoder, again):
    edit_metadata(corpus, file_name=lambda row: again if row.Index == 7 else row.file_name)
    check_stage1_refused(tmp_path, corpus, encoder, corpus / "metadata.csv", "row 9", repr(again), "row 2")


def test_a_label_that_iemocap_does_not_have_is_named(tmp_path, encoder):
    labels = tmp_path / "corpora/Session1/dialog/EmoEvaluation/Ses01F_impro01.txt"
    labels.parent.mkdir(parents=True)
    labels.write_text("[6.2901 - 8.2357]\tSes01F_impro01_F000\tjoy\t[2.5000, 2.5000, 2.5000]\n")
    named = [labels, "Ses01F_impro01_F000", "'joy'"]
    check_stage1_refused(tmp_path, tmp_path / "corpora", encoder, *named, corpus="iemocap")


def edit_metadata(corpus: Path, **columns) -> None:
    """Set columns of metadata.csv, each computed from a row."""
    table = pd.read_csv(corpus / "metadata.csv")
    for name, compute in columns.items():
        table[name] = [compute(row) for row in table.itertuples()]
    table.to_csv(corpus / "metadata.csv", index=False)


def folds_of_speakers(row) -> int:
    return int(row.speaker[1:])


# -------------------------------------------------------------------------------------------------------------- audio


def write_nan(path: Path) -> None:
    samples = tone(440, 0.3)
    samples[1000] = np.nan
    soundfile.write(path, samples, SAMPLING_RATE, subtype="FLOAT")


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (lambda path: path.write_bytes(b"no audio" * 100), "cannot be read"),
        (lambda path: path.write_bytes(b""), "cannot be read"),
        (lambda path: soundfile.write(path, np.zeros(0), SAMPLING_RATE), "no samples"),
        (write_nan, "NaN"),
        (Path.unlink, "no audio file"),
    ],
    ids=["unreadable", "empty", "zero length", "NaN", "missing"],
)
def test_a_file_that_is_no_audio_is_named(tmp_path, corpus, encoder, damage, named):
    damage(corpus / FIRST_WAV)
    cache = Path(datasets.config.HF_DATASETS_CACHE)
    before = set(cache.rglob("*.arrow"))
    check_stage1_refused(tmp_path, corpus, encoder, FIRST_WAV, named)
    assert set(cache.rglob("*.arrow")) == before


def test_all_damaged_files_are_named_together(tmp_path, corpus, encoder):
    names = [path.name for path in sorted(corpus.glob("*.wav"))[::9]]
    for name in names:
        (corpus / name).write_bytes(b"no audio")
    check_stage1_refused(tmp_path, corpus, encoder, f"{len(names)} audio files cannot be used", *names, "row 2: ")


def test_a_recording_on_both_sides_of_the_split_is_refused(tmp_path, corpus, encoder):
    shutil.copy(corpus / FIRST_WAV, corpus / "f4_sad_scripted.wav")
    check_stage1_refused(tmp_path, corpus, encoder, FIRST_WAV, "f4_sad_scripted.wav", "the same recording")


def test_a_second_spelling_of_a_label_is_refused(tmp_path, corpus, encoder):
    edit_metadata(corpus, emotion=lambda row: "Sad" if row.Index == 1 else row.emotion)
    check_stage1_refused(tmp_path, corpus, encoder, "'emotion'", "'Sad', 'sad'", "did you mean 'sad'?")


def test_unusual_clips_are_named_once_and_trained_on(tmp_path, corpus, encoder):
    names = sorted(path.name for path in corpus.glob("*.wav"))
    for name, samples in zip(
        names, (np.zeros(4000), tone(440, 0.003), tone(440, 0.6), tone(440, 1 / 16000)), strict=False
    ):
        soundfile.write(corpus / name, samples, SAMPLING_RATE)
    check_stage1_refused(tmp_path, corpus, encoder, names[2], "row ", "--max_seconds 0.55", max_seconds=0.55)
    flags = run_flags(corpus, tmp_path / "out", encoder=encoder, num_train_epochs=1)
    ended = run_script("run_stage1", flags)
    assert ended.code == 0, ended.stderr
    *notes, temperature = [line for line in ended.stderr.splitlines() if line.startswith("run_stage1.py: ")]
    assert temperature.startswith("run_stage1.py: the temperature, 10.0, is at the bound of its search")  # tiny dev
    assert notes == [
        f"run_stage1.py: 2 of {len(names)} clips are silent: {names[0]}, {names[3]}",
        f"run_stage1.py: 2 of {len(names)} clips are shorter than 0.1 seconds: {names[1]}, {names[3]}",
        f"run_stage1.py: 2 of {len(names)} clips are with a transcript longer than their frames, which CTC cannot "
        f"learn: {names[1]}, {names[3]}",
    ]
    assert "NaN" not in (tmp_path / "out/results.json").read_text()
    assert "emotion angry" in ended.stdout


# ------------------------------------------------------------------------------------------------------------- models


def test_an_encoder_that_is_nowhere_is_refused(tmp_path, good_corpus):
    check_stage1_refused(tmp_path, good_corpus, tmp_path / "none", "--encoder", tmp_path / "none")


def test_a_folder_without_an_encoder_is_refused(tmp_path, good_corpus):
    (tmp_path / "empty").mkdir()
    check_stage1_refused(tmp_path, good_corpus, tmp_path / "empty", "--encoder", tmp_path / "empty")


def test_a_model_of_text_is_no_encoder(tmp_path, good_corpus):
    BertConfig().save_pretrained(tmp_path / "bert")
    check_stage1_refused(tmp_path, good_corpus, tmp_path / "bert", "--encoder", "'bert'", "raw waveforms")


def test_an_encoder_whose_layers_are_of_another_kind_is_refused(tmp_path, good_corpus):
    SEWConfig().save_pretrained(tmp_path / "sew")
    check_stage1_refused(tmp_path, good_corpus, tmp_path / "sew", "--encoder", "'sew'", "wav2vec2, hubert, wavlm")


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(path.read_bytes()[:5000])])
def test_an_encoder_without_whole_weights_is_refused(tmp_path, good_corpus, encoder, damage):
    shutil.copytree(encoder, tmp_path / "cut")
    damage(tmp_path / "cut/model.safetensors")
    check_stage1_refused(tmp_path, good_corpus, tmp_path / "cut", "--encoder", tmp_path / "cut", "weights")


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"sampling_rate": 8000}, "a sampling rate of 8000"),
        ({"do_normalize": "yes"}, "is damaged"),
        ([], "is damaged"),
        (None, "is damaged"),
    ],
    ids=str,
)
def test_settings_of_a_feature_extractor_that_do_not_fit_are_refused(tmp_path, encoder, settings, named):
    own = json.loads((encoder / "preprocessor_config.json").read_text())
    shutil.copy(encoder / "config.json", tmp_path)
    text = "{" if settings is None else json.dumps(own | settings if isinstance(settings, dict) else settings)
    (tmp_path / "preprocessor_config.json").write_text(text)
    with pytest.raises(UserError, match=f"^[^\n]*preprocessor_config.json[^\n]* {named}[^\n]*$"):
        feature_extractor_of(str(tmp_path))
    (tmp_path / "preprocessor_config.json").unlink()
    assert feature_extractor_of(str(tmp_path)).do_normalize


@pytest.mark.parametrize(("factor", "said"), [(0.0, "are zero"), (math.nan, "not finite"), (math.inf, "not finite")])
def test_an_encoder_that_holds_no_numbers_is_refused(tmp_path, good_corpus, encoder, factor, said):
    shutil.copytree(encoder, tmp_path / "odd")
    weights = load_file(encoder / "model.safetensors")
    save_file(
        {name: weight * factor for name, weight in weights.items()},
        tmp_path / "odd/model.safetensors",
        {"format": "pt"},
    )
    check_stage1_refused(tmp_path, good_corpus, tmp_path / "odd", "--encoder", tmp_path / "odd", said)


def test_a_stage1_that_is_not_finite_is_refused(tmp_path, good_corpus, finished):
    shutil.copytree(finished, tmp_path / "odd")
    weights = load_file(finished / "model.safetensors")
    save_file(
        {name: weight * math.nan for name, weight in weights.items()},
        tmp_path / "odd/model.safetensors",
        {"format": "pt"},
    )
    check_stage2_refused(tmp_path, good_corpus, tmp_path / "odd", "--stage1", "not finite", "such as encoder.")


def check_stage2_refused(tmp_path: Path, corpus: Path, stage1: Path, *named: object, **flags: object) -> None:
    check_refused("run_stage2", run_flags(corpus, tmp_path / "out", stage1=stage1, **flags), *named)


def test_a_stage1_that_is_nowhere_is_refused(tmp_path, good_corpus):
    check_stage2_refused(tmp_path, good_corpus, tmp_path / "none", "--stage1", tmp_path / "none", "run_stage1.py")


def test_the_default_stage1_is_named_where_it_is_missing(tmp_path, good_corpus, monkeypatch):
    monkeypatch.chdir(tmp_path)
    check_refused("run_stage2", run_flags(good_corpus, tmp_path / "out"), "--stage1 runs/folder/stage1/fold1")


@pytest.mark.parametrize("text", [None, "[]", '{"a": "b"}'])
def test_a_stage1_without_its_vocabulary_is_refused(tmp_path, good_corpus, finished, text):
    shutil.copytree(finished, tmp_path / "odd")
    (tmp_path / "odd/vocab.json").unlink() if text is None else (tmp_path / "odd/vocab.json").write_text(text)
    check_stage2_refused(tmp_path, good_corpus, tmp_path / "odd", "odd", "vocab.json")


@pytest.mark.parametrize("name", ["args.json", "split.json"])
def test_a_stage1_whose_training_is_unknown_gets_one_notice(tmp_path, finished, name):
    shutil.copytree(finished, tmp_path / "odd")
    (tmp_path / "odd" / name).unlink()
    with pytest.warns(Notice, match=f"--stage1 {tmp_path}/odd: cannot be checked") as caught:
        check_never_heard(Earlier("--stage1", str(tmp_path / "odd")), datasets.DatasetDict())
        check_never_heard(Earlier("--stage1", str(tmp_path / "odd")), datasets.DatasetDict(), {})
    assert len(caught) == 1


def test_an_encoder_is_no_stage1(tmp_path, good_corpus, encoder):
    check_stage2_refused(tmp_path, good_corpus, encoder, "--stage1", encoder, "stage-1 model")


def test_a_run_of_stage2_is_no_stage1(tmp_path, good_corpus, finished):
    shutil.copytree(finished, tmp_path / "stage2")
    results = json.loads((tmp_path / "stage2/results.json").read_text())
    (tmp_path / "stage2/results.json").write_text(json.dumps(results | {"stage": 2}))
    check_stage2_refused(tmp_path, good_corpus, tmp_path / "stage2", "--stage1", tmp_path / "stage2", "stage 2")


@pytest.mark.parametrize("missing", ["model.safetensors", "config.json", "results.json"])
def test_an_unfinished_stage1_is_refused(tmp_path, good_corpus, finished, missing):
    shutil.copytree(finished, tmp_path / "half")
    (tmp_path / "half" / missing).unlink()
    check_stage2_refused(tmp_path, good_corpus, tmp_path / "half", "--stage1", tmp_path / "half")


def test_another_width_than_that_of_stage1_is_refused(tmp_path, good_corpus, finished):
    check_stage2_refused(tmp_path, good_corpus, finished, "--embedding_dim 32", "256", embedding_dim=32)


def test_a_stage1_that_heard_the_test_utterances_is_refused(tmp_path, good_corpus, finished):
    flags = run_flags(good_corpus, tmp_path / "out", stage1=finished, fold=2)
    check_refused("run_stage2", flags, "--stage1", "same fold")


def test_a_stage1_that_was_trained_on_the_development_set_is_refused(tmp_path, good_corpus, finished):
    stage1 = shutil.copytree(finished, tmp_path / "stage1")
    split = json.loads((stage1 / "split.json").read_text())
    split["train"]["ids"] += split.pop("dev")["ids"]
    (stage1 / "split.json").write_text(json.dumps(split | {"dev_choice": "none"}))
    flags = run_flags(good_corpus, tmp_path / "out", stage1=stage1)
    check_refused("run_stage2", flags, "--stage1", "development set", "--dev none with --selection last")


def test_a_stage1_that_heard_the_test_under_another_name_is_refused(tmp_path, good_corpus, finished):
    shutil.copytree(good_corpus, tmp_path / "renamed")
    flags = run_flags(tmp_path / "renamed", tmp_path / "out", stage1=finished, fold=2)
    check_refused("run_stage2", flags, "--stage1", "test set", "same fold")


@pytest.mark.parametrize("joined_before", [True, False])
def test_a_stage1_that_heard_the_test_in_joined_folders_is_refused(tmp_path, good_corpus, finished, joined_before):
    """Ids of joined folders have the folder's name in front."""
    more = write_corpus(tmp_path / "more")
    stage1 = shutil.copytree(finished, tmp_path / "stage1")
    if joined_before:
        args, split = (json.loads((stage1 / name).read_text()) for name in ("args.json", "split.json"))
        args["corpus"]["data_dir"].append(str(more))
        for part in ("train", "dev"):
            split[part]["ids"] = [f"{good_corpus.name}/{name}" for name in split[part]["ids"]]
        for name, content in (("args.json", args), ("split.json", split)):
            (stage1 / name).write_text(json.dumps(content))
    folders = [good_corpus] if joined_before else [good_corpus, more]
    flags = run_flags(good_corpus, tmp_path / "out", stage1=stage1, fold=2, data_dir=folders)
    check_refused("run_stage2", flags, "--stage1", "same fold")


def test_a_stage1_that_heard_the_test_behind_a_link_is_refused(tmp_path, good_corpus, finished):
    """Published settings have a folder by the name that was typed."""
    (tmp_path / "elsewhere").mkdir()
    shutil.copytree(good_corpus, tmp_path / "elsewhere/version1")
    (tmp_path / good_corpus.name).symlink_to(tmp_path / "elsewhere/version1")
    flags = run_flags(tmp_path / good_corpus.name, tmp_path / "out", stage1=finished, fold=2)
    check_refused("run_stage2", flags, "--stage1", "same fold")
