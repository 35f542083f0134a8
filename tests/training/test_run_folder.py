"""Pins whom an output folder belongs to: what is another's is left as it is, a finished run is shown again, an
interrupted one goes on.
"""

import json
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import soundfile
from helpers.tiny import check_refused, contents, run_flags, run_script, write_corpus

from ser_mtl.corpora.batching import LengthGroupedSampler
from ser_mtl.errors import UserError
from ser_mtl.lock import lock, me, release
from ser_mtl.training import line, run_folder
from ser_mtl.training.run_folder import check_run_folder, check_shared


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        ({"seed": 7}, "--seed 42, not 7"),
        ({"fold": 2}, "--fold 1, not 2"),
        ({"tasks": ["emotion"]}, "--tasks ['emotion', 'asr'], not ['emotion']"),
    ],
    ids=str,
)
def test_the_folder_of_another_run_is_left_alone(good_corpus, encoder, finished, flags, named):
    flags = run_flags(good_corpus, finished, **{"encoder": encoder} | flags)
    check_refused("run_stage1", flags, "--output_dir", finished, "another run", named)


def test_the_folder_of_the_other_stage_is_left_alone(good_corpus, finished):
    flags = run_flags(good_corpus, finished, stage1=finished)
    check_refused("run_stage2", flags, "--output_dir", finished, "stage 1, not 2")


def test_a_folder_with_other_files_is_left_alone(tmp_path, good_corpus, encoder):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/thesis.tex").write_text("all of it")
    flags = run_flags(good_corpus, tmp_path / "out", encoder=encoder)
    check_refused("run_stage1", flags, "--output_dir", tmp_path / "out")


@pytest.mark.parametrize("output", ["file", "file/below"])
def test_a_file_is_no_output_folder(tmp_path, good_corpus, encoder, output):
    (tmp_path / "file").write_text("all of it")
    flags = run_flags(good_corpus, tmp_path / output, encoder=encoder)
    check_refused("run_stage1", flags, "--output_dir", tmp_path / "file")
    assert (tmp_path / "file").read_text() == "all of it"


def test_a_run_from_before_a_flag_was_there_had_its_default(tmp_path, good_corpus, encoder, finished):
    shutil.copytree(finished, tmp_path / "out")
    record = json.loads((tmp_path / "out/args.json").read_text())
    assert record["method"].pop("soft_labels") is False
    record["training"]["use_cpu"] = not record["training"]["use_cpu"]  # what it ran on is not what it was
    (tmp_path / "out/args.json").write_text(json.dumps(record))
    flags = run_flags(good_corpus, tmp_path / "out", encoder=encoder)
    assert run_script("run_stage1", flags).code == 0
    check_refused("run_stage1", [*flags, "--soft_labels"], "another run", "--soft_labels False, not True")


@pytest.mark.parametrize("file", ["args.json", "results.json"])
@pytest.mark.parametrize("content", ["{", "[]", ""])
def test_a_damaged_record_is_named(tmp_path, good_corpus, encoder, finished, file, content):
    shutil.copytree(finished, tmp_path / "out")
    (tmp_path / "out" / file).write_text(content)
    flags = run_flags(good_corpus, tmp_path / "out", encoder=encoder)
    check_refused("run_stage1", flags, "--output_dir", tmp_path / "out", file)


def test_arguments_of_another_program_are_left_alone(tmp_path, good_corpus, encoder):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/args.json").write_text('{"lr": 0.1}')
    flags = run_flags(good_corpus, tmp_path / "out", encoder=encoder)
    check_refused("run_stage1", flags, "--output_dir", tmp_path / "out", "another run")


def test_a_finished_run_shows_its_table_again_and_trains_nothing(good_corpus, encoder, finished):
    before = contents(finished)
    ended = run_script("run_stage1", run_flags(good_corpus, finished, encoder=encoder))
    assert (ended.code, ended.stderr) == (0, "")
    results = json.loads((finished / "results.json").read_text())
    assert f"{100 * results['test']['all']['emotion']['ua']:.1f}" in ended.stdout
    assert str(finished) in ended.stdout
    assert contents(finished) == before


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"annotations": "1f"}, "labels or transcripts of utterances have changed"),
        ({"test": {"ids": ["gone.wav"]}}, "test has lost 1 utterances"),
    ],
    ids=str,
)
def test_a_finished_run_says_that_its_corpus_has_changed(tmp_path, good_corpus, encoder, finished, change, said):
    shutil.copytree(finished, tmp_path / "out")
    record = json.loads((tmp_path / "out/split.json").read_text()) | change
    (tmp_path / "out/split.json").write_text(json.dumps(record))
    ended = run_script("run_stage1", run_flags(good_corpus, tmp_path / "out", encoder=encoder))
    assert ended.code == 0 and len(ended.stderr.splitlines()) == 1
    assert "the corpus has changed since this run" in ended.stderr and said in ended.stderr


BEGAN = {
    "labels": {"emotion": ["angry", "sad"]},
    "annotations": "1f",
    "train": {"ids": ["a"], "audio": ["01"]},
    "test": {"ids": ["b", "c"], "audio": ["02", "03"]},
}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"labels": {"emotion": ["sad", "zorn"]}}, "the labels of emotion were angry, sad, now sad, zorn"),
        ({"train": {"ids": ["a", "b"], "audio": ["01", "02"]}}, "train has lost 0 utterances and gained 1, such as b"),
        ({"train": {"ids": ["d"], "audio": ["04"]}}, "train has lost 1 utterances and gained 1, such as a"),
        ({"dev": {"ids": ["d"]}}, "dev has lost 0 utterances and gained 1, such as d"),
        (
            {"test": {"ids": ["b", "c"], "audio": ["09", "08"]}},
            "the audio of 2 utterances of test has changed, such as b",
        ),
        ({"annotations": "2e"}, "labels or transcripts of utterances have changed"),
    ],
    ids=str,
)
def test_every_change_of_the_corpus_is_named_in_one_line(tmp_path, change, said):
    (tmp_path / "split.json").write_text(json.dumps(BEGAN))
    run_folder.check_same_corpus(tmp_path, BEGAN)
    with pytest.raises(UserError, match=f"^--output_dir {tmp_path}: the corpus has changed .*{said}") as stop:
        run_folder.check_same_corpus(tmp_path, BEGAN | change)
    assert "\n" not in str(stop.value)


def test_what_an_older_version_did_not_write_is_not_compared(tmp_path):
    (tmp_path / "split.json").write_text(json.dumps({part: {"ids": BEGAN[part]["ids"]} for part in ("train", "test")}))
    run_folder.check_same_corpus(tmp_path, BEGAN)
    (tmp_path / "split.json").unlink()
    run_folder.check_same_corpus(tmp_path, BEGAN)


def test_a_run_does_not_resume_on_another_corpus(tmp_path, encoder, monkeypatch):
    corpus = write_corpus(tmp_path / "mine")
    flags = run_flags(corpus, tmp_path / "out", encoder=encoder, save_minutes=0, tasks=["emotion"])
    with monkeypatch.context() as patched:
        patched.setattr(LengthGroupedSampler, "set_epoch", lambda sampler, epoch: 1 / (1 - epoch))
        with pytest.raises(ZeroDivisionError):
            run_script("run_stage1", flags)
    assert list((tmp_path / "out").glob("checkpoint-*"))
    first = sorted(corpus.glob("*.wav"))[0]
    samples, rate = soundfile.read(first)
    soundfile.write(first, samples[::-1], rate)
    check_refused("run_stage1", flags, "--output_dir", "the audio of 1 utterances", first.name)
    soundfile.write(first, samples, rate)
    table = (corpus / "metadata.csv").read_text()
    (corpus / "metadata.csv").write_text(table.replace(",angry,", ",zorn,"))
    check_refused("run_stage1", flags, "--output_dir", "labels of emotion were angry, sad, now sad, zorn")


def test_an_interrupted_run_resumes_and_ends_as_if_uninterrupted(tmp_path, good_corpus, encoder, finished, monkeypatch):
    output = tmp_path / "out"
    flags = run_flags(good_corpus, output, encoder=encoder, save_minutes=0)

    def interrupt(sampler: LengthGroupedSampler, epoch: int) -> None:
        if epoch == 1:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(LengthGroupedSampler, "set_epoch", interrupt)
        assert run_script("run_stage1", flags).code == 130
    assert not (output / "results.json").exists()
    assert [path.name for path in output.glob("checkpoint-*")] == ["checkpoint-3"]
    (output / "checkpoint-5").mkdir()  # as a run leaves it that is killed while it writes
    state = output / "checkpoint-3/trainer_state.json"
    kept = json.loads(state.read_text())
    kept["stateful_callbacks"]["Stopwatch"]["attributes"]["seconds"] += 60
    state.write_text(json.dumps(kept))
    monkeypatch.setattr(line, "fit_line", None)  # it is kept

    ended = run_script("run_stage1", flags)
    assert ended.code == 0, ended.stderr
    assert "epoch 2:" in ended.stdout
    assert "epoch 1:" not in ended.stdout
    for file in ("predictions.jsonl", "model.safetensors", "split.json"):
        assert (output / file).read_bytes() == (finished / file).read_bytes()
    assert losses_in(output) == losses_in(finished)
    results = json.loads((output / "results.json").read_text())
    assert results["line"] == json.loads((finished / "results.json").read_text())["line"]
    assert 1 <= results["minutes"] < 2
    ids = json.loads((output / "split.json").read_text())["train"]["ids"]
    heard = 2 * sum(soundfile.info(good_corpus / name).duration for name in ids)  # in both epochs
    speed = heard / (60 * results["minutes"])
    assert results["audio_seconds_per_second"] == pytest.approx(speed, abs=0.06)  # rounded to 0.1
    assert sorted(path.name for path in output.iterdir()) == sorted(path.name for path in finished.iterdir())


def losses_in(run: Path) -> list[dict[str, float]]:
    """What the run logged of each loss, epoch by epoch."""
    history = json.loads((run / "history.json").read_text())
    return [{name: value for name, value in entry.items() if "loss" in name} for entry in history if "loss" in entry]


def test_the_commit_is_marked_when_code_changed_not_for_recordings(tmp_path, monkeypatch):
    def git(*words: str) -> str:
        who = ["-c", "user.name=A", "-c", "user.email=a@example.com"]
        return subprocess.run(["git", "-C", tmp_path, *who, *words], capture_output=True, text=True, check=True).stdout

    (tmp_path / "run_folder.py").write_text("x = 1\n")
    git("init", "--quiet")
    monkeypatch.setattr(run_folder, "__file__", str(tmp_path / "run_folder.py"))
    assert run_folder.commit.__wrapped__() is None  # somebody else's checkout
    git("add", "run_folder.py")
    git("commit", "--quiet", "-m", "first")
    head = git("rev-parse", "HEAD").strip()
    (tmp_path / "clip.wav").write_bytes(b"RIFF")
    assert run_folder.commit.__wrapped__() == head
    (tmp_path / "run_folder.py").write_text("x = 2\n")
    assert run_folder.commit.__wrapped__() == head + "+"


def test_a_run_of_a_script_goes_on_from_python(finished):
    record = json.loads((finished / "args.json").read_text())
    data_dir = [Path(folder).name for folder in record["corpus"]["data_dir"]]
    from_python = record | {"script": None, "corpus": record["corpus"] | {"data_dir": data_dir}}
    assert check_run_folder(finished, from_python) is not None
    with pytest.raises(UserError, match="--data_dir"):
        check_run_folder(finished, from_python | {"script": "run_stage1.py"})


def test_processes_that_look_at_an_empty_folder_do_not_disturb_each_other(tmp_path):
    with ThreadPoolExecutor(4) as processes:
        looks = [processes.submit(check_run_folder, tmp_path, {"training": {}}) for _ in range(200)]
    assert [look.result() for look in looks] == [None] * 200 and not [*tmp_path.iterdir()]


def test_a_process_that_sees_another_folder_stops_all_before_training(tmp_path):
    """As on two machines with folders of one name, one of which may have the lock of an earlier run."""
    first = "process 7 on the first machine"
    for there in (None, "process 7 on this machine"):
        if there:
            (tmp_path / ".lock").write_text(there)
        with pytest.raises(UserError, match=f"--output_dir {tmp_path}: is not the same folder .*process 0"):
            check_shared(tmp_path, first, patience=0)
    (tmp_path / ".lock").write_text(first)
    check_shared(tmp_path, first, patience=0)


def test_the_process_that_has_a_folder_keeps_it_as_it_looks(tmp_path):
    lock(tmp_path)
    check_shared(tmp_path, me(), patience=0)
    program = "import sys; from pathlib import Path; from ser_mtl.lock import lock; lock(Path(sys.argv[1]))"
    other = subprocess.run([sys.executable, "-c", program, tmp_path], capture_output=True, text=True)
    assert f"a run is at work there ({me()})" in other.stderr
    release(tmp_path)
