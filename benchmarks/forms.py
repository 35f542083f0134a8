"""A run in PyTorch (float32, bfloat16) and ONNX (float32, int8): speed, memory and answers of each form.

python benchmarks/forms.py runs/folder/stage1/fold1 --data_dir my_recordings

Each form answers in its own process with one thread: a clip of five seconds, and 200 recordings of the corpus, the
test fold first. Times are CPU seconds, which other work on the machine hardly changes. Recordings are mono, 16 kHz.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np
import soundfile

RATE, CLIPS = 16_000, 200
FORMS = {"PyTorch float32": "model.safetensors", "PyTorch bfloat16": "model.safetensors"}
FORMS |= {"ONNX float32": "model.onnx", "ONNX int8": "model_int8.onnx"}
"""The file of each form."""


def main() -> None:
    """Measure the forms in turns and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="Folder of a finished run of a whole model.")
    parser.add_argument("--data_dir", type=Path, required=True, help="Folder corpus of the run.")
    parser.add_argument("--rounds", type=int, default=3, help="Of which the median is taken. [3]")
    parser.add_argument("--form", choices=FORMS, help="Measure this one here, and print json.")
    args = parser.parse_args()
    rows = [json.loads(line) for line in (args.run / "predictions.jsonl").read_text().splitlines()]
    others = json.loads((args.run / "split.json").read_text())["train"]["ids"]
    files = [args.data_dir / name for name in [*(row["id"] for row in rows), *others][:CLIPS]]
    if args.form:
        return print(json.dumps(measured(args.run, args.form, files)))
    with TemporaryDirectory() as folder:
        run = with_graphs(args.run, Path(folder))
        results = {form: [] for form in FORMS}
        for form in list(FORMS) * args.rounds:
            command = [sys.executable, __file__, run, "--data_dir", args.data_dir, "--form", form]
            ended = subprocess.run(command, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True)
            results[form].append(json.loads(ended.stdout.splitlines()[-1]))
        print(table(run, rows, results))


def with_graphs(run: Path, folder: Path) -> Path:
    """A folder with links to a run's files and the ONNX graphs of the run."""
    from ser_mtl.hub.onnx import write_onnx

    for file in run.resolve().iterdir():
        (folder / file.name).symlink_to(file)
    for int8 in (False, True):
        write_onnx(run, folder, int8)
    return folder


def measured(run: Path, form: str, files: list[Path]) -> dict:
    """CPU seconds to the first answer, of a later clip and of all clips; peak MiB after each; emotions."""
    answer = torch_form(run, form.split()[1]) if form.startswith("PyTorch") else onnx_form(run / FORMS[form])
    five = soundfile.read(files[0], dtype="float32")[0]
    five = np.resize(five, 5 * RATE)
    answer([five])
    start, memory = time.process_time(), peak_memory()
    clip = [seconds_of(lambda: answer([five]))[0] for _ in range(5)]
    seconds, emotions = seconds_of(lambda: answer([soundfile.read(file, dtype="float32")[0] for file in files]))
    return {"start": start, "clip": median(clip), "clips": seconds, "MiB": memory, "MiB of all": peak_memory(),
            "emotions": emotions}  # fmt: skip


def torch_form(run: Path, dtype: str) -> Callable[[list[np.ndarray]], list[str]]:
    """A function from recordings to emotions: the recognizer, which batches them."""
    import ser_mtl

    recognizer = ser_mtl.load(run, device="cpu", dtype=dtype)
    return lambda clips: [answer["emotion"]["label"] for answer in recognizer([(clip, RATE) for clip in clips])]


def onnx_form(file: Path) -> Callable[[list[np.ndarray]], list[str]]:
    """A function from recordings to emotions: the ONNX graph, one recording at a time."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(file, options)
    metadata = {name: json.loads(value) for name, value in session.get_modelmeta().custom_metadata_map.items()}

    def emotion(clip: np.ndarray) -> str:
        if metadata["normalise"]:
            clip = (clip - clip.mean()) / np.sqrt(clip.var() + 1e-7)
        inputs = {"input_values": clip[None], "attention_mask": np.ones((1, len(clip)), np.int64)}
        return metadata["labels"]["emotion"][session.run(None, inputs)[0].argmax()]  # emotion is the first task

    return lambda clips: [emotion(clip) for clip in clips]


def seconds_of(work: Callable[[], list[str]]) -> tuple[float, list[str]]:
    """CPU seconds of a call, and its result."""
    begun = time.process_time()
    result = work()
    return time.process_time() - begun, result


def peak_memory() -> int:
    """Peak resident memory of this process in MiB, on Linux. Without torch, which the ONNX forms do not load."""
    status = Path("/proc/self/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))) // 1024


def table(run: Path, rows: list[dict], results: dict[str, list[dict]]) -> str:
    """A row for each form."""
    names = ("start", "clip", "clips", "MiB", "MiB of all")
    lines = [f"| form | {' | '.join(names)} | MB | equal | UA |", "|---" * (len(names) + 4) + "|"]
    exact = results["PyTorch float32"][0]["emotions"]
    for form, rounds in results.items():
        emotions = rounds[0]["emotions"]
        values = [f"{median(found[name] for found in rounds):.4g}" for name in names]
        size = (run / FORMS[form]).stat().st_size / 1e6
        equal = np.mean([a == b for a, b in zip(emotions, exact, strict=True)])
        lines.append(f"| {form} | {' | '.join(values)} | {size:.1f} | {equal:.1%} | {recall(rows, emotions):.1%} |")
    return "\n".join(lines)


def recall(rows: list[dict], emotions: list[str]) -> float:
    """Mean over classes of the share of recognised test utterances (UA)."""
    hits: dict[str, list[bool]] = {}
    for row, emotion in zip(rows, emotions, strict=False):  # the test fold comes first
        hits.setdefault(row["emotion"]["label"], []).append(row["emotion"]["label"] == emotion)
    return float(np.mean([np.mean(found) for found in hits.values()]))


if __name__ == "__main__":
    main()
