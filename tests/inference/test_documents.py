"""Subtitles and TextGrids are read back by plain parsers; files of a folder are kept apart; tables, figures, arrays."""

import csv
import html
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
from helpers.tiny import SAMPLING_RATE, check_one_line, run_script, tone
from PIL import Image

from ser_mtl.inference import plot
from ser_mtl.inference.documents import srt, textgrid, vtt
from ser_mtl.inference.finding import find_audio
from ser_mtl.inference.writing import names_in

HOSTILE = 'a "b" <i>c</i> {d} & -> \\N \\h\x1b[2J'
TIME = r"(\d\d):(\d\d):(\d\d)[.,](\d\d\d)"


def part(label: str, probability: float = 0.75) -> dict:
    return {"label": label, "probability": probability, "probabilities": {label: probability, "b": 1 - probability}}


@pytest.fixture
def answer() -> dict:
    segments = [
        {"start": 0.512, "end": 3.25, "emotion": part("sad"), "valence": {"value": 2.5}, "transcript": "it is so " * 9},
        {"start": 3661.0, "end": 3662.001, "emotion": part("unsure"), "valence": {"value": 1.0}, "transcript": HOSTILE},
        {"start": 3700.0, "end": 3701.0, "emotion": part("<b>"), "valence": {"value": 1.0}, "transcript": ""},
    ]
    return {"duration": 3702.5, "emotion": part("sad"), "segments": segments}


def cues(text: str) -> list[tuple[float, float, str]]:
    """Start, end and text of each subtitle."""
    found = []
    for block in re.split(r"\n\n+", text.strip().removeprefix("WEBVTT").strip()):
        number, times, *lines = block.split("\n")
        match = re.fullmatch(f"{TIME} --> {TIME}", times)
        assert int(number) == len(found) + 1 and match
        h, m, s, ms, *end = map(int, match.groups())
        start, end = (round(3600 * h + 60 * m + s + ms / 1000, 3) for h, m, s, ms in ((h, m, s, ms), end))
        found.append((start, end, " ".join(lines)))
        assert max(map(len, map(html.unescape, lines))) <= 42
    return found


@pytest.mark.parametrize("form", [srt, vtt])
def test_subtitles_are_read_back(answer, form):
    text = form(answer)
    found = cues(text)
    assert [cue[:2] for cue in found] == [(s["start"], s["end"]) for s in answer["segments"]]
    assert found[0][2] == f"[sad, valence 2.50] {('it is so ' * 9).strip()}"
    shown = html.unescape(found[1][2]) if form is vtt else found[1][2]
    assert shown == '[unsure, valence 1.00] a "b" <i>c</i> {d} & -> /N /h/x1b[2J'
    assert form is srt or not re.search("<|&(?!lt;|gt;|amp;|quot;)", text)
    assert all(line.isprintable() for line in text.split("\n"))


def test_documents_of_silence_are_empty():
    silence = {"duration": 3.0, "speech": False, "segments": []}
    assert (srt(silence).strip(), vtt(silence).strip()) == ("", "WEBVTT")
    assert re.search(r"xmin = 0 \s*xmax = 3 \s*text = \"\"", textgrid(silence))


def test_a_textgrid_is_read_back(answer):
    text = textgrid(answer)
    tiers = text.split("item [")[2:]
    assert [re.search(r'name = "(.*)"', tier)[1] for tier in tiers] == ["emotion", "valence", "transcript"]
    for tier, said in zip(tiers, (["sad", "unsure", "<b>"], ["2.50", "1.00", "1.00"], None), strict=True):
        found = re.findall(r'xmin = ([\d.]+) \s*xmax = ([\d.]+) \s*text = "((?:[^"]|"")*)"', tier)
        edges = [float(edge) for start, end, _ in found for edge in (start, end)]
        assert edges[0] == 0 and edges[-1] == 3702.5 and edges[1:-1:2] == edges[2::2]  # no gap, no overlap
        spoken = [(float(start), float(end), label) for start, end, label in found if label]
        if said:
            times = [(s["start"], s["end"]) for s in answer["segments"]]
            assert spoken == [(*time, label) for time, label in zip(times, said, strict=True)]
        else:
            assert spoken[1][2].replace('""', '"') == HOSTILE.replace("\x1b", "\\x1b")


def test_names_in_a_folder_are_kept_apart():
    files = [
        Path(name) for name in ("in/a/x.wav", "in/b/x.wav", "in/b/x.mp3", "in/b/X.flac", "in/a/x.wav", "in/b/x-2.ogg")
    ]
    assert [str(name) for name in names_in(Path("out"), files, ".srt")] == [
        "out/a/x.srt", "out/b/x.srt", "out/b/x-2.srt", "out/b/X-3.srt", "out/a/x-2.srt", "out/b/x-2-2.srt",
    ]  # fmt: skip
    assert names_in(Path("out"), [Path("../a.wav")], ".txt") == [Path("out/a.txt")]


def test_a_pattern_that_no_shell_has_expanded_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a.wav", "deep/b.wav", "deep/[1].wav"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).touch()
    found = find_audio(map(Path, ["**/*.wav", "deep/[1].wav", "*.mp3"]))
    assert list(map(str, found.files)) == ["a.wav", "deep/[1].wav", "deep/b.wav", "deep/[1].wav"]
    assert found.faults == ["*.mp3: nothing matches this pattern"]


# ------------------------------------------------------------------------------------------------------ ser-mtl predict


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Two recordings of several segments and one of silence."""
    folder = tmp_path_factory.mktemp("recordings")
    sound = np.concatenate([tone(330, 3), np.zeros(2 * SAMPLING_RATE), tone(550, 4)])
    for name, samples in (("a/x.wav", sound), ("b/x.wav", sound[::-1]), ("silence.wav", np.zeros(SAMPLING_RATE))):
        (folder / name).parent.mkdir(exist_ok=True)
        soundfile.write(folder / name, samples, SAMPLING_RATE)
    return folder


def test_a_folder_gets_a_file_a_figure_and_rows_for_each(finished2, folder, tmp_path):
    out, figures, arrays = tmp_path / "out", tmp_path / "figures", tmp_path / "x.npz"
    flags = ["--model", finished2, "--format", "srt", "--output", f"{out}/", "--plot", f"{figures}/"]
    ended = run_script("predict", [folder, *flags, "--embeddings", arrays])
    assert (ended.code, ended.stdout) == (0, ""), ended.stderr
    lines = run_script("predict", [folder, "--model", finished2, "--format", "jsonl"]).stdout.splitlines()
    answers = {
        str(Path(answer["file"]).relative_to(folder).with_suffix("")): answer for answer in map(json.loads, lines)
    }
    assert {str(file.relative_to(out).with_suffix("")) for file in out.rglob("*.srt")} == answers.keys()
    assert {str(file.relative_to(figures).with_suffix("")) for file in figures.rglob("*.png")} == answers.keys()
    for name in ("a/x", "b/x"):
        found = [cue[:2] for cue in cues((out / f"{name}.srt").read_text())]
        assert len(found) == 2 and found == [(s["start"], s["end"]) for s in answers[name]["segments"]]
    assert answers["silence"] == {"file": str(folder / "silence.wav"), "duration": 1.0, "speech": False, "segments": []}
    with np.load(arrays) as rows:
        assert rows["emotion"].shape[0] == len(rows["recording"]) == len(rows["start"]) == 4
        assert set(rows["recording"]) == {str(folder / "a/x.wav"), str(folder / "b/x.wav")}


def test_a_table_has_a_row_a_segment_on_request(finished2, folder):
    ended = run_script("predict", [folder, "--model", finished2, "--format", "csv", "--segments", "--abstain", "1"])
    rows = list(csv.DictReader(io.StringIO(ended.stdout)))
    assert [(Path(row["file"]).name, float(row["start"])) for row in rows[::2]] == [
        ("x.wav", 0),
        ("x.wav", 0),
        ("silence.wav", 0),
    ]
    assert [row["emotion"] for row in rows] == ["unsure"] * 4 + ["no speech"]
    assert rows[-1]["emotion_probability"] == "" and float(rows[-1]["end"]) == 1
    text = run_script("predict", [folder / "silence.wav", "--model", finished2]).stdout
    assert text == f"{folder}/silence.wav: no speech\n"


def test_standard_input_is_a_recording(finished2, folder, monkeypatch):
    flags = ["--model", finished2, "--format", "json"]
    (expected,) = json.loads(run_script("predict", [folder / "a/x.wav", *flags]).stdout)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO((folder / "a/x.wav").read_bytes())))
    (found,) = json.loads(run_script("predict", ["-", *flags]).stdout)
    assert found == expected | {"file": "-"}


def test_what_has_no_place_is_one_line_before_any_work(folder, tmp_path):
    for flags, said in (
        (["--format", "vtt"], "--format vtt: has a file for each recording"),
        (["--plot", "a.png"], "--plot a.png: has a figure for each recording"),
        (["--embeddings", f"{folder}/a/x.wav/e.npz"], f"--embeddings {folder}/a/x.wav/e.npz: cannot be written"),
    ):
        check_one_line(run_script("predict", [folder, *flags]), "predict", said)
    check_one_line(run_script("predict", ["-", "-"]), "predict", "-: standard input can be read once")
    check_one_line(run_script("predict", [folder / "a/x.wav", "--plot", "a.pdf"]), "predict", "must end with .png")


# ------------------------------------------------------------------------------------------------------------- figure


def test_the_figure_stacks_the_probabilities_at_their_times(folder, tmp_path):
    segments = [
        {
            "start": start,
            "end": end,
            "emotion": {"label": "x", "probability": p, "probabilities": {"x": p, "$y": 1 - p}},
        }
        for start, end, p in ((0.0, 3.0, 0.75), (5.0, 9.0, 0.5))
    ]
    figure = plot.draw(folder / "a/x.wav", Path("$x.wav"), {"duration": 9.0, "segments": segments}, tmp_path / "a.png")
    wave, emotions = figure.axes
    first, second = (path.get_paths()[0] for path in emotions.collections)
    assert first.get_extents().bounds == (0, 0, 9, 75) and second.get_extents().bounds == pytest.approx((0, 0, 9, 100))
    assert first.contains_point((8, 49)) and not first.contains_point((8, 51)) and not first.contains_point((4, 1))
    assert second.contains_point((8, 51)) and not second.contains_point((8, 49))
    assert wave.get_xlim() == (0, 9)
    assert Image.open(tmp_path / "a.png").size == (960, 540)


def test_the_figure_of_a_model_of_values_has_a_line_for_each(folder, tmp_path):
    values = [{"start": 0.0, "end": 3.0, "valence": {"value": 2.5}, "activation": {"value": 4.0}}]
    figure = plot.draw(folder / "a/x.wav", Path("x.wav"), {"duration": 3.0, "segments": values}, tmp_path / "a.png")
    lines = [line for collection in figure.axes[1].collections for line in collection.get_segments()]
    assert [line.tolist() for line in lines] == [[[0, 2.5], [3, 2.5]], [[0, 4], [3, 4]]]


def test_the_waveform_of_a_figure_is_its_loudest_samples():
    samples = np.zeros(8000, np.int16)
    samples[[10, 4005, 7999]] = (100, -200, 50)
    peaks = plot.envelope([samples[:3000], samples[3000:]], 0.5)
    assert len(peaks) == 800 and list(np.flatnonzero(peaks)) == [1, 400, 799]
    assert list(peaks[[1, 400, 799]]) == [0.5, 1, 0.25]


@pytest.mark.parametrize(("value", "longest", "text"), [(2.5, 9, "2.5"), (90, 300, "1:30"), (3725, 36000, "1:02:05")])
def test_a_clock_shows_what_its_recording_needs(value, longest, text):
    assert plot.clock(value, longest) == text
