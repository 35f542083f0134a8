"""Pins `ser-mtl annotate`: the answers of `predict`, nothing lost, nothing twice, whoever writes, whenever it ends."""

import json
import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
from helpers.tiny import SAMPLING_RATE, check_one_line, contents, run_script, tone
from helpers.untrained import write_clips, write_model

import answers_ser_mtl
from ser_mtl.annotation import jobs, plan, shards
from ser_mtl.annotation.manifest import unfinished
from ser_mtl.annotation.work import Place, Task, _settings
from ser_mtl.errors import Notice, UserError, write_errors
from ser_mtl.inference.recognizer import load


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "untrained")


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> Path:
    """26 clips: two silences' worth of them, two that are no audio. Not to be changed."""
    return write_clips(tmp_path_factory.mktemp("clips"), 26)


@pytest.fixture(scope="module")
def undisturbed(clips, model, tmp_path_factory) -> Path:
    """The folder of a run of one process, six shards. Not to be changed."""
    output = tmp_path_factory.mktemp("annotated") / "undisturbed"
    ended = run_script("annotate", flags(clips, output, model))
    assert (ended.code, ended.stdout.startswith("26 recordings, 0.00 hours, 2 of them with an error: ")) == (0, True)
    return output


def flags(clips: Path, output: Path, model: Path, *more: object) -> list[object]:
    return ["--data_dir", clips, "--output_dir", output, "--model", model, "--shard_files", 5, *more]


def rows_in(output: Path) -> list[dict]:
    return [row for path in sorted(output.glob("*.parquet")) for row in pq.read_table(path).to_pylist()]


@contextmanager
def held(path: Path):
    """Another process has this lock."""
    code = "import fcntl, sys; f = open(sys.argv[1], 'a'); fcntl.lockf(f, fcntl.LOCK_EX); print(flush=True); input()"
    program = [sys.executable, "-c", code, path]
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        process.stdout.readline()
        yield
        process.kill()


def test_rows_are_the_answers_of_predict_and_a_broken_file_is_one_with_its_error(clips, model, undisturbed):
    ended = run_script("predict", [clips, "--model", model, "--format", "json"])
    answers = {str(Path(answer.pop("file")).relative_to(clips)): answer for answer in json.loads(ended.stdout)}
    rows = {row.pop("file"): row for row in rows_in(undisturbed)}
    assert list(rows) == sorted(str(path.relative_to(clips)) for path in clips.rglob("*.wav"))
    for file, row in rows.items():
        error = row.pop("error")
        assert (file in answers) == (error is None)
        if error:
            assert error.startswith(f"{file}: cannot be read as audio") and set(row.values()) == {None}
            continue
        close(row, {name: None for name in row} | answers[file])
    assert rows["0/00020.wav"]["segments"] == [] and rows["0/00020.wav"]["emotion"] is None  # silence


def close(one: object, other: object) -> None:
    """Equal, but for rounding in numbers."""
    if isinstance(one, dict):
        other.pop("speech", None)
        assert one.keys() == other.keys()
        for name in one:
            close(one[name], other[name])
    elif isinstance(one, list):
        for left, right in zip(one, other, strict=True):
            close(left, right)
    else:
        assert one == (pytest.approx(other, abs=1e-5) if isinstance(other, float) else other)


def test_the_manifest_and_datasets_tell_what_is_there(undisturbed, tmp_path):
    from datasets import load_dataset

    manifest = json.loads((undisturbed / "manifest.json").read_text())
    assert [shard["rows"] for shard in manifest["shards"]] == [5, 5, 5, 5, 5, 1]
    assert (manifest["rows"], manifest["errors"]) == (26, 2)
    assert manifest["seconds"] == pytest.approx(sum(row["duration"] or 0 for row in rows_in(undisturbed)), abs=0.01)
    read = load_dataset("parquet", data_files=f"{undisturbed}/*.parquet", split="train", cache_dir=str(tmp_path))
    assert read.to_list() == rows_in(undisturbed)


def test_two_processes_write_what_one_does_and_none_waits_for_another(clips, model, undisturbed, tmp_path, monkeypatch):
    output = tmp_path / "out"
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    output.mkdir()
    with held(output / ".shard-000002.lock"):
        ended = run_script("annotate", flags(clips, output, model))
        assert (ended.code, ended.stdout) == (0, "")  # the first process tells
        assert [path.stem[-1] for path in sorted(output.glob("*.parquet"))] == ["0", "1", "3", "4", "5"]
        assert not (output / "manifest.json").exists()
        monkeypatch.setenv("RANK", "0")
        ended = run_script("annotate", flags(clips, output, model))
        assert (ended.code, ended.stdout[:32]) == (0, "1 of 6 shards are still to come:")
    monkeypatch.setenv("RANK", "1")
    assert run_script("annotate", flags(clips, output, model)).stdout.startswith("26 recordings")  # it wrote the rest
    assert run_script("annotate", flags(clips, output, model)).stdout == ""
    assert contents(output) == contents(undisturbed)


def test_each_process_begins_with_its_share_and_then_takes_what_is_left():
    orders = [Place(rank, 3).order(list(range(7)), shared=True) for rank in range(3)]
    assert orders == [[0, 3, 6, 5, 4, 2, 1], [1, 4, 6, 5, 3, 2, 0], [2, 5, 6, 4, 3, 1, 0]]
    assert Place(1, 3).order([0, 1, 4], shared=False) == [1, 4]  # a file system without locks


def test_an_interrupted_run_leaves_whole_shards_and_resumes(clips, model, undisturbed, tmp_path, monkeypatch):
    calls, answer_batch = iter(range(3)), answers_ser_mtl._Inference.answer_batch

    def interrupt(*batch):
        if next(calls, None) is None:
            raise KeyboardInterrupt
        return answer_batch(*batch)

    with monkeypatch.context() as patch:
        patch.setattr("answers_ser_mtl._Inference.answer_batch", interrupt)
        ended = run_script("annotate", flags(clips, tmp_path, model))
    assert (ended.code, ended.stderr.splitlines()[-1]) == (130, "ser-mtl annotate: stopped")
    left = contents(tmp_path)
    assert 1 < len(left) < 6 and left.items() <= contents(undisturbed).items()  # no halves, no locks, no manifest
    assert run_script("annotate", flags(clips, tmp_path, model)).code == 0
    assert contents(tmp_path) == contents(undisturbed)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert run_script("annotate", flags(clips, tmp_path, model)).stdout.startswith("26 recordings")
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}


def test_what_a_kill_left_half_written_and_a_damaged_shard_are_replaced(clips, model, undisturbed, tmp_path):
    output = shutil.copytree(undisturbed, tmp_path / "out")
    path = output / "shard-000001.parquet"
    path.write_bytes(path.read_bytes()[:100])
    (output / "shard-000003.parquet").rename(output / ".partial.shard-000003.parquet")
    (output / ".shard-000003.lock").write_text("process 1 on nowhere")
    assert run_script("annotate", flags(clips, output, model)).code == 0
    assert contents(output) == contents(undisturbed)


def test_new_recordings_become_further_shards_and_gone_ones_rows_with_an_error(clips, model, undisturbed, tmp_path):
    data = shutil.copytree(clips, tmp_path / "clips")
    output = shutil.copytree(undisturbed, tmp_path / "out")
    for number in range(6):
        soundfile.write(data / f"3/a{number}.wav", tone(300 + number, 0.3), SAMPLING_RATE)
    (output / "shard-000000.parquet").unlink()
    (data / "0/00010.wav").unlink()
    ended = run_script("annotate", flags(data, output, model))
    assert (ended.code, ended.stdout.startswith("32 recordings, 0.00 hours, 3 of them")) == (0, True)
    assert sorted(path.name for path in output.glob("*.parquet"))[-2:] == [
        "shard-000006.parquet",
        "shard-000007.parquet",
    ]
    rows = {row["file"]: row for row in rows_in(output)}
    assert len(rows) == len(rows_in(output)) == 32
    assert rows["0/00010.wav"]["error"] == "0/00010.wav: no such file" and rows["3/a5.wav"]["error"] is None
    same = [path for path in undisturbed.glob("*.parquet") if path.name != "shard-000000.parquet"]
    assert all(path.read_bytes() == (output / path.name).read_bytes() for path in same)


def test_other_models_settings_and_recordings_are_refused_in_one_line(clips, model, undisturbed, tmp_path):
    other = write_model(tmp_path / "other", seed=1)
    before = contents(undisturbed)
    check_one_line(run_script("annotate", flags(clips, undisturbed, other)), "annotate", f"--model {other}", model)
    for more, said in ((["--dtype", "bfloat16"], "float32, not bfloat16"), (["--no_transcript"], "transcript True")):
        check_one_line(run_script("annotate", flags(clips, undisturbed, model, *more)), "annotate", "plan.json", said)
    elsewhere = write_clips(tmp_path / "elsewhere/below", 1).parent
    ended = run_script("annotate", flags(elsewhere, undisturbed, model))
    check_one_line(ended, "annotate", f"--data_dir {elsewhere}", "none of the recordings")
    assert contents(undisturbed) == before


def test_adapters_are_the_same_model_in_every_process(finished2):
    models = [_settings(load(finished2)) for _ in range(2)]  # what lies under the adapters is drawn anew
    assert models[0] == models[1]


def test_mistakes_are_one_line(clips, model, tmp_path):
    (tmp_path / "empty").mkdir()
    check_one_line(
        run_script("annotate", flags(tmp_path / "empty", tmp_path / "o", model)), "annotate", "no audio file"
    )
    check_one_line(run_script("annotate", flags(tmp_path / "gone", tmp_path / "o", model)), "annotate", "--data_dir")
    check_one_line(run_script("annotate", flags(clips, tmp_path / "o", tmp_path)), "annotate", "--model")
    check_one_line(run_script("annotate", flags(clips, tmp_path / "o", model, "--jobs", 2)), "annotate", "--jobs")
    (tmp_path / "file").write_text("")
    ended = run_script("annotate", flags(clips, tmp_path / "file/o", model))
    check_one_line(ended, "annotate", f"--output_dir {tmp_path / 'file/o'}")
    more = ["--launcher", "slurm", "--slurm_options", "gpus"]
    check_one_line(run_script("annotate", flags(clips, tmp_path / "o", model, *more)), "annotate", "--slurm_options")


def test_a_damaged_plan_is_named(clips, model, undisturbed, tmp_path):
    output = shutil.copytree(undisturbed, tmp_path / "out")
    text = (output / "plan.json").read_text()
    empty = json.dumps(json.loads(text) | {"shards": [[]], "sha256": plan.digest_of([[]])})
    for damaged in (text.replace("00010", "00011"), text[:100], empty):
        (output / "plan.json").write_text(damaged)
        check_one_line(run_script("annotate", flags(clips, output, model)), "annotate", "plan.json", "damaged")


def test_long_answers_are_written_in_parts(clips, model, undisturbed, tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "_ROW_GROUP", 3)
    assert run_script("annotate", flags(clips, tmp_path, model)).code == 0
    assert pq.read_metadata(tmp_path / "shard-000001.parquet").num_row_groups > 1
    assert rows_in(tmp_path) == rows_in(undisturbed)


def test_a_shard_of_long_recordings_has_fewer(clips, monkeypatch, tmp_path):
    monkeypatch.setattr(plan, "_BYTES", 30_000)
    settings = plan.Settings(
        dtype="float32", transcript=True, speech="energy", model="", labels={}, scales={}, temperature=1.0
    )
    made = plan.plan(clips, tmp_path / "out", 100, "model", settings)
    sizes = [[(clips / file).stat().st_size for file in shard] for shard in made["shards"]]
    assert len(sizes) > 3 and all(sum(shard[:-1]) < 30_000 <= sum(shard) for shard in sizes[:-1])


def test_a_name_that_is_not_utf_8_is_told_and_left_out(clips, model, tmp_path):
    data = shutil.copytree(clips / "3", tmp_path / "clips")
    shutil.copy(data / "00003.wav", os.fsencode(data) + b"/\xff.wav")
    ended = run_script("annotate", flags(data, tmp_path / "out", model))
    assert ended.code == 0 and "name is not UTF-8 (1 such files)" in ended.stderr
    assert [row["file"] for row in rows_in(tmp_path / "out")] == ["00003.wav", "00013.wav", "00023.wav"]


def test_a_task_that_gives_a_value_is_a_column_of_values(clips, tmp_path):
    import ser_mtl

    labels = {"emotion": ["sad", "a.b", "1/2"]}
    valued = {"tasks": ["emotion", "arousal"], "labels": labels, "value_scales": {"arousal": [3.0, 1.0]}}
    model = write_model(tmp_path / "model", **valued, vocab_size=None)
    assert run_script("annotate", flags(clips / "1", tmp_path / "out", model)).code == 0
    row = rows_in(tmp_path / "out")[0]
    answer = ser_mtl.load(model, device="cpu")(clips / "1" / row["file"])
    assert set(row) == {"file", "duration", "emotion", "arousal", "segments", "error"}
    assert set(row["arousal"]) == {"value"} and set(row["emotion"]["probabilities"]) == set(labels["emotion"])
    close(row, {"file": row["file"], "error": None} | answer)


def test_jobs_of_a_cluster_write_the_same_shards(clips, model, undisturbed, tmp_path):
    task = Task(clips, tmp_path, str(model), shard_files=5)
    assert jobs.annotate_by_jobs(task, 2, {}, cluster="debug").startswith("26 recordings")
    shutil.rmtree(tmp_path / "jobs", ignore_errors=True)
    assert contents(tmp_path) == contents(undisturbed)
    with pytest.raises(UserError, match=r"--model nowhere: .*\(2 of 2 jobs; "):
        jobs.annotate_by_jobs(Task(clips, tmp_path, "nowhere"), 2, {}, cluster="debug")


BROKEN = [{"RANK": "a"}, {"WORLD_SIZE": "0"}, {"RANK": ""}, {"RANK": "2", "WORLD_SIZE": "2"}, {"LOCAL_RANK": "x"}]


@pytest.mark.parametrize("given", BROKEN)
def test_a_broken_launcher_is_one_line(clips, tmp_path, monkeypatch, given):
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    ended = run_script("annotate", flags(clips, tmp_path / "out", tmp_path))
    check_one_line(ended, "annotate", ", ".join(f"{name}={value}" for name, value in given.items()))
    assert not (tmp_path / "out").exists()


def test_a_table_of_others_in_the_place_of_a_shard_is_replaced(undisturbed, tmp_path):
    rows = pq.read_metadata(undisturbed / "shard-000000.parquet").num_rows
    pq.write_table(pa.table({"duration": ["a"] * rows, "file": ["b"] * rows, "error": ["c"] * rows}), tmp_path / "a")
    assert shards.is_whole(undisturbed / "shard-000000.parquet", rows) and not shards.is_whole(tmp_path / "a", rows)


@pytest.mark.parametrize("outside", ["../secret.wav", "/etc/passwd", "a/../../b.wav", "", "a\0b"])
def test_a_plan_of_others_reads_nothing_outside_the_folder(clips, tmp_path, outside):
    begun(clips, tmp_path)
    written = json.loads((tmp_path / "plan.json").read_text())
    written["shards"][0][0] = outside
    written["sha256"] = plan.digest_of(written["shards"])
    (tmp_path / "plan.json").write_text(json.dumps(written))
    with pytest.raises(UserError, match=r"plan.json: names '.*', which is not below --data_dir"):
        begun(clips, tmp_path)


@pytest.mark.parametrize("name", [".plan.lock", "shard-000000.parquet"])
def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(clips, tmp_path, name):
    written = begun(clips, tmp_path)
    os.mkfifo(tmp_path / name)
    with pytest.raises(UserError, match=f"{name}: is a pipe or a device"):
        unfinished(begun(clips, tmp_path) if name.endswith("lock") else written, tmp_path)


def test_other_recordings_under_the_same_names_are_refused_and_a_changed_one_is_said(clips, tmp_path):
    data, output = shutil.copytree(clips, tmp_path / "clips"), tmp_path / "out"
    first = [shard[0] for shard in begun(data, output)["shards"]]
    (data / first[0]).unlink()  # it went; its row says so
    begun(data, output)
    (data / first[1]).write_bytes(b"longer than before" * 10_000)
    with pytest.warns(Notice, match=rf"{first[1]}: has changed .*1 of the {len(first) - 1} that were compared"):
        begun(data, output)
    for file in first[1:]:
        (data / file).write_bytes(b"longer than before" * 10_000)
    with pytest.raises(UserError, match=r"--data_dir .*: its recordings are not those that .* the sizes of all"):
        begun(data, output)


def begun(data: Path, output: Path) -> plan.Plan:
    settings = plan.Settings(
        dtype="float32", transcript=True, speech="energy", model="", labels={}, scales={}, temperature=1.0
    )
    return plan.plan(data, output, 5, "model", settings)


def test_a_folder_in_the_place_of_a_file_is_named(tmp_path):
    (tmp_path / "x").mkdir()
    said = rf"^--output_dir here: {tmp_path / 'x'}: cannot be written"
    with pytest.raises(UserError, match=said), write_errors("--output_dir here"):
        (tmp_path / "x").write_text("")
