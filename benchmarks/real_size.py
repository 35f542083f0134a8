"""A model of XLS-R 300m's size from the checkpoint to the Hub and back, on a CPU: time, memory and disk of each step.

python benchmarks/real_size.py --data_dir ravdess --work /tmp/real_size
python benchmarks/real_size.py --data_dir ravdess --work /tmp/real_size --quick      # 20 clips, 2 in an update

An untrained encoder is stored as the real one is. Stage 1 makes ten updates, stopped after the fifth and resumed;
stage 2 makes ten; then prediction, merging, publishing to the tests' Hub, and loading from it. Needs 11 GB of disk.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

import psutil
from helpers.hub_server import HubServer

from ser_mtl.files import write_json

if TYPE_CHECKING:
    from transformers import Wav2Vec2Config

ROOT = Path(__file__).resolve().parent.parent
UPDATES, STOP_AFTER, BATCH_SIZE = 10, 5, 16
TOKEN = "hf_of_a_test"
OLD_NAMES = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}


def write_pretrained(folder: Path, config: "Wav2Vec2Config") -> None:
    """Write an untrained checkpoint in the form of XLS-R's on the Hub: pickled, with the heads of its pretraining."""
    import torch
    from transformers import Wav2Vec2FeatureExtractor, Wav2Vec2ForPreTraining, set_seed

    set_seed(0)
    state = Wav2Vec2ForPreTraining(config).state_dict()
    for new, old in OLD_NAMES.items():
        state = {name.replace(new, old): tensor for name, tensor in state.items()}
    folder.mkdir(parents=True)
    config.architectures = ["Wav2Vec2ForPreTraining"]
    config.save_pretrained(folder)
    Wav2Vec2FeatureExtractor(return_attention_mask=True).save_pretrained(folder)
    torch.save(state, folder / "pytorch_model.bin")


@dataclass
class Step:
    """A finished process.

    Attributes:
        name: its purpose.
        seconds: from its start to its end.
        cpu_seconds: of all its threads.
        memory: peak GiB.
        disk: GB below the working folder afterwards.
        peak_disk: the same at its peak, sampled twice a second.
    """

    name: str
    seconds: float
    cpu_seconds: float
    memory: float
    disk: float
    peak_disk: float


class Steps:
    """Runs one process after the other and records the cost of each.

    Args:
        work: folder whose size is sampled.
        env: environment variables of the processes, added to this one's.
        most: GiB of memory above which a process is killed; so is one that leaves the machine less than 1 GiB.
    """

    def __init__(self, work: Path, env: dict[str, str], most: float):
        self.work, self.env, self.most = work, os.environ | env, most
        self.done: list[Step] = []

    def run(self, name: str, *argv: object, stop_after: int | None = None) -> None:
        """Run a Python program to its end, or send it SIGTERM after so many updates.

        Raises:
            RuntimeError: it failed, or took too much memory.
        """
        log = self.work / f"{len(self.done)}.log"
        begun, peak_disk = time.perf_counter(), 0.0
        with log.open("w") as out:
            process = subprocess.Popen(
                [sys.executable, *map(str, argv)], cwd=ROOT, env=self.env, stdout=out, stderr=subprocess.STDOUT
            )
        resources = None
        while resources is None:
            time.sleep(0.5)
            peak_disk = max(peak_disk, size_of(self.work))
            ended, status, used = os.wait4(process.pid, os.WNOHANG)
            if ended:
                resources, process.returncode = used, os.waitstatus_to_exitcode(status)
            elif (
                psutil.Process(process.pid).memory_info().rss > self.most * 2**30
                or psutil.virtual_memory().available < 2**30
            ):
                process.kill()
            elif stop_after and log.read_text(errors="replace").count("epoch ") >= stop_after:
                process.send_signal(signal.SIGTERM)
                stop_after = None
        if process.returncode not in (0, 143):
            raise RuntimeError(f"{name}: exit code {process.returncode}\n{log.read_text(errors='replace')[-3000:]}")
        seconds, cpu = time.perf_counter() - begun, resources.ru_utime + resources.ru_stime
        memory = resources.ru_maxrss / 2**20
        self.done.append(Step(name, seconds, cpu, memory, size_of(self.work), peak_disk))
        show(self.done[-1])


def size_of(folder: Path) -> float:
    """GB of the files below a folder; files deleted meanwhile are not counted."""
    total = 0
    for path, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(path, name)).st_blocks * 512
            except FileNotFoundError:
                continue
    return total / 1e9


def show(step: Step) -> None:
    """Print a row."""
    print(
        f"{step.name:34} {step.seconds:7.1f} {step.cpu_seconds:7.1f} {step.memory:6.2f} "
        f"{step.disk:6.2f} {step.peak_disk:6.2f}",
        flush=True,
    )


def a_few_clips(ravdess: Path, folder: Path) -> Path:
    """Copy a clip of each emotion by each of five actors into a new folder."""
    folder.mkdir()
    chosen: dict[tuple[str, str], Path] = {}
    for clip in sorted(ravdess.glob("**/03-01-*")):
        emotion, actor = clip.stem.split("-")[2], clip.stem.split("-")[6]
        if emotion in ("01", "03", "04", "05") and int(actor) <= 5:
            chosen.setdefault((emotion, actor), clip)
    for clip in chosen.values():
        shutil.copy(clip, folder)
    return folder


def run_all(steps: Steps, data_dir: Path, batch: int) -> None:
    """Run every step, from the checkpoint to the Hub and back."""
    work = steps.work
    encoder, one, two = work / "encoder", work / "stage1", work / "stage2"
    recording = sorted(data_dir.glob("**/03-01-*"))[0]
    flags = ["--corpus", "ravdess", "--data_dir", data_dir, "--no_check_counts", "--fold", "1", "--dev", "none"]
    flags += ["--selection", "last", "--max_steps", UPDATES, "--logging_strategy", "steps", "--logging_steps", 1]
    flags += ["--recipe", "paper", "--bf16", "True", "--per_device_train_batch_size", batch]
    stage1 = ["run_stage1.py", *flags, "--encoder", encoder, "--output_dir", one]
    steps.run("make the checkpoint", __file__, "--write", encoder)
    steps.run(f"stage 1, stopped after update {STOP_AFTER}", *stage1, stop_after=STOP_AFTER)
    steps.run("stage 1, resumed", *stage1)
    steps.run("stage 2", "run_stage2.py", *flags, "--stage1", one, "--output_dir", two)
    steps.run("predict, stage 1", "-m", "ser_mtl", "predict", recording, "--model", one)
    steps.run("predict, stage 2", "-m", "ser_mtl", "predict", recording, "--model", two)
    steps.run("merge", "-m", "ser_mtl", "export", two, "--to", "merged")
    steps.run("predict, merged", "-m", "ser_mtl", "predict", recording, "--model", two / "merged")
    steps.run("publish stage 1", "-m", "ser_mtl", "publish", one, "--repo_id", "me/one")
    steps.run("publish stage 2", "-m", "ser_mtl", "publish", two, "--repo_id", "me/two")
    steps.run("predict, from the Hub", "-m", "ser_mtl", "predict", recording, "--model", "me/two")
    steps.run("predict, from the Hub again", "-m", "ser_mtl", "predict", recording, "--model", "me/two")


def main() -> None:
    """Run everything in a folder, print the table, and delete the folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", type=Path, help="RAVDESS")
    parser.add_argument("--work", type=Path, help="a folder to be made, and deleted at the end")
    parser.add_argument("--quick", action="store_true", help="20 clips, updates of 2 utterances")
    parser.add_argument("--most", type=float, default=11, help="GiB of memory above which a step is killed [11]")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where the figures are written")
    parser.add_argument("--write", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.write:  # in its own process, so that the one that serves the Hub stays small
        from benchmarks.workload import xls_r_300m

        return write_pretrained(args.write, xls_r_300m())
    args.work.mkdir(parents=True)
    hub = HubServer()
    hub.tokens[TOKEN] = "me"
    homes = {"HF_HOME": str(args.work / "hub"), "HF_DATASETS_CACHE": str(args.work / "cache")}
    env = homes | {"HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN, "PYTHONPATH": str(ROOT), "HF_HUB_DISABLE_XET": "1"}
    print(f"{'step':34} {'seconds':>7} {'CPU s':>7} {'GiB':>6} {'GB':>6} {'most':>6}")
    steps = Steps(args.work, env, args.most)
    try:
        data_dir = a_few_clips(args.data_dir, args.work / "clips") if args.quick else args.data_dir
        run_all(steps, data_dir, 2 if args.quick else BATCH_SIZE)
    finally:
        if args.json:
            write_json(args.json, [vars(step) for step in steps.done])
        if sys.exc_info()[0] is None:
            shutil.rmtree(args.work)
    return None


if __name__ == "__main__":
    main()
