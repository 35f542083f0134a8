"""Pins that a large corpus is decoded in parts: in any number of processes, killed or not, with the same result."""

import multiprocessing
import os
import signal
import threading
import time
import warnings
from pathlib import Path

import datasets
import numpy as np
import pytest
import soundfile
import torch
from datasets import Dataset
from helpers.tiny import tone

from ser_mtl.corpora import audio, cache
from ser_mtl.corpora.audio import with_samples
from ser_mtl.corpora.level import Clipped
from ser_mtl.errors import UserError
from ser_mtl.processes import for_each

CLIPS = 12


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Dataset:
    """Clips at 8 kHz, which torch resamples; two of them are clipped."""
    folder = tmp_path_factory.mktemp("parts")
    for number in range(CLIPS):
        samples = tone(100 + number, 0.1, 8000)
        samples[5] = 1.2 if number in (2, 9) else 0
        soundfile.write(folder / f"{number:02}.wav", samples, 8000, subtype="FLOAT")
    paths = [str(folder / f"{number:02}.wav") for number in range(CLIPS)]
    return Dataset.from_dict({"id": [Path(path).stem for path in paths], "path": paths})


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """An empty cache, in parts of three rows, made in two processes."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    monkeypatch.setattr(cache, "_ROWS", 3)
    monkeypatch.setattr(audio, "cores", lambda: 2)
    return tmp_path / "ser_mtl"


def decoded_by(monkeypatch, corpus: Dataset) -> list[str]:
    """The files that are decoded, in whichever process, before `with_samples` has its result."""
    receiver, sender = multiprocessing.Pipe(duplex=False)
    original = audio.decode
    with monkeypatch.context() as patch:
        patch.setattr(audio, "decode", lambda path, *more: sender.send(path[-6:]) or original(path, *more))
        with_samples(corpus)
    found = []
    while receiver.poll():
        found.append(receiver.recv())
    return sorted(found)


def test_in_two_processes_every_bit_is_that_of_one(folder, corpus, tmp_path, monkeypatch):
    torch.set_num_threads(2)
    torch.randn(300, 300) @ torch.randn(300, 300)  # threads that a forked process does not have
    torch.set_num_threads(1)
    with pytest.warns(Clipped) as caught:
        made = with_samples(corpus).to_list()
    assert [str(one.message)[:42] for one in caught] == ["2 recordings have clipped samples, such as"]
    assert len(list(folder.glob("decoded-*.arrow"))) == CLIPS / 3
    assert {file.suffix for file in folder.iterdir()} == {".arrow", ".crc32"}
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "other")
    monkeypatch.setattr(audio, "cores", lambda: 1)
    assert with_samples(corpus).to_list() == made
    assert [row["samples"] for row in made] == [audio.decode(path).tolist() for path in corpus["path"]]


def test_a_run_that_is_killed_loses_no_more_than_the_parts_in_the_making(folder, corpus, monkeypatch):
    original = audio.decode

    def stuck(path, *more):
        if path.endswith(("05.wav", "10.wav")):
            time.sleep(60)
        return original(path, *more)

    monkeypatch.setattr(cache.random, "sample", lambda parts, count: parts)  # the stuck ones are not the first
    monkeypatch.setattr(audio, "decode", stuck)

    def killed() -> None:
        cache.tqdm.set_lock(threading.RLock())  # its own: killed, it would hold the one of this process for ever
        with_samples(corpus)

    run = multiprocessing.get_context("fork").Process(target=killed)
    run.start()
    while len(list(folder.glob("decoded-*.arrow"))) < 2:
        time.sleep(0.02)
    os.kill(run.pid, signal.SIGKILL)
    run.join()
    monkeypatch.setattr(audio, "decode", original)
    assert set(decoded_by(monkeypatch, corpus)) <= {f"{number:02}.wav" for number in range(3, 6)} | {
        f"{number:02}.wav" for number in range(9, 12)
    }
    assert decoded_by(monkeypatch, corpus) == []


def test_damaged_files_of_several_parts_are_named_together(folder, corpus, monkeypatch):
    good = {path: Path(path).read_bytes() for path in (corpus["path"][1], corpus["path"][7])}
    for path in good:
        Path(path).write_bytes(b"no audio")
    with pytest.raises(UserError, match=r"^2 audio files cannot be used: .*01\.wav: cannot be read.*07\.wav: cannot"):
        with_samples(corpus)
    for path, content in good.items():
        Path(path).write_bytes(content)
    assert decoded_by(monkeypatch, corpus) == ["01.wav", "07.wav"]


def test_two_machines_with_one_cache_agree(folder, corpus):
    expected = [audio.decode(path).tolist() for path in corpus["path"]]
    runs = [multiprocessing.get_context("fork").Process(target=_check, args=(corpus, expected)) for _ in range(2)]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
    assert [run.exitcode for run in runs] == [0] * 2
    assert {file.suffix for file in folder.iterdir()} == {".arrow", ".crc32"}


def _check(corpus: Dataset, expected: list) -> None:
    assert with_samples(corpus)["samples"][:] == expected


def test_what_a_killed_process_left_half_written_goes_after_a_day(folder, corpus):
    for name, age in (("partial-old", 90_000), ("partial-new", 0)):
        (folder / name).mkdir(parents=True)
        os.utime(folder / name, (time.time() - age,) * 2)
    with_samples(corpus)
    assert [path.name for path in folder.glob("partial-*")] == ["partial-new"]


# ------------------------------------------------------------------------------------------------------- processes


def test_results_warnings_and_errors_come_back_from_processes():
    def work(job: int) -> int:
        if job == 7:
            raise UserError("seven")
        warnings.warn(f"job {job}", stacklevel=1)
        return job * job

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert sorted(for_each(range(6), work, 3)) == [0, 1, 4, 9, 16, 25]
    assert sorted(str(one.message) for one in caught if one.category is UserWarning) == [f"job {n}" for n in range(6)]
    with pytest.raises(UserError, match=r"^seven$"), warnings.catch_warnings(action="ignore"):
        list(for_each(range(9), work, 2))


def test_a_process_that_dies_ends_the_run():
    def work(job: int) -> None:
        if job == 1:
            os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(UserError, match="a process was killed"):
        list(for_each(range(4), work, 2))


def test_processes_end_with_the_one_that_started_them():
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)

    def work(job: int) -> None:
        sender.send(os.getpid())
        time.sleep(60)

    run = context.Process(target=lambda: list(for_each(range(2), work, 2)))
    run.start()
    started = [receiver.recv() for _ in range(2)]
    os.kill(run.pid, signal.SIGKILL)
    run.join()
    end = time.monotonic() + 10
    while any(_runs(pid) for pid in started):
        assert time.monotonic() < end
        time.sleep(0.05)


def _runs(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False


def test_the_parts_of_a_corpus_are_no_larger_than_told(folder):
    corpus = Dataset.from_dict({"path": list("abcdefgh")})
    parts = cache.parts_of(corpus, "kind", list("abcdefgh"), "", [1, 1, 1, 1, 9, 1, 4, 2], 5)
    assert [part.rows["path"][:] for part in parts] == [list("abc"), ["d"], ["e"], list("fg"), ["h"]]
    assert len({part.file for part in parts}) == 5
    assert np.concatenate([part.rows["path"][:] for part in parts]).tolist() == list("abcdefgh")
