"""How a benchmark measures: systems in turns, seconds, memory, operations, and what waits for the device."""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile
from tqdm import tqdm
from transformers import Trainer, TrainerCallback

CUDA = torch.cuda.is_available()
PEAK_FLOPS = {"H200": 989e12, "H100": 989e12, "A100": 312e12}
"""Dense bfloat16 operations a second by the datasheets."""
WAITS = ("cudaStreamSynchronize", "cudaEventSynchronize")
"""What a profile shows where the program waits for a GPU: numbers read from it, copies to and fro."""


class Epoch(TrainerCallback):
    """Time an epoch, from its first batch to the end of its last update."""

    def on_epoch_begin(self, args, state, control, **kwargs):
        """Start the clock."""
        self.begun = now()

    def on_epoch_end(self, args, state, control, **kwargs):
        """Stop it."""
        self.seconds = now() - self.begun


def now() -> float:
    """Seconds, when the device is done with all it was given."""
    if CUDA:
        torch.cuda.synchronize()
    return time.perf_counter()


def train_an_epoch(trainer: Trainer, clock: Epoch, warming_up: bool) -> float:
    """Seconds that one epoch takes; to warm up, of its first update."""
    trainer.args.max_steps = 1 if warming_up else -1
    Trainer.train(trainer)  # the training alone: no run folder, no model saved
    return clock.seconds


class Watch(TrainerCallback):
    """Profile some updates, after the first ones, from the begin of each to its end."""

    FIRST, UPDATES = 2, 4

    def __init__(self):
        self.seen = profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if CUDA else [])])

    def on_step_begin(self, args, state, control, **kwargs):
        """Start with the first of these updates."""
        if state.global_step == self.FIRST:
            self.seen.start()

    def on_step_end(self, args, state, control, **kwargs):
        """Stop with the last."""
        if state.global_step == self.FIRST + self.UPDATES:
            self.seen.stop()


def waits_an_update(trainer: Trainer) -> dict[str, float]:
    """How often an update waits for the device, by what the profiler calls it; empty where it never does."""
    trainer.add_callback(watch := Watch())
    trainer.args.max_steps = watch.FIRST + watch.UPDATES
    Trainer.train(trainer)  # the training alone: no run folder, no model saved
    trainer.remove_callback(watch)
    return {event.key: event.count / watch.UPDATES for event in watch.seen.key_averages() if event.key in WAITS}


@dataclass
class Measured:
    """Seconds of a system in each round, and the GiB that were in use at most: of the GPU, else of this process."""

    seconds: list[float] = field(default_factory=list)
    memory: float | None = None


def measure(systems: dict[str, Callable[..., float]], rounds: int) -> dict[str, Measured]:
    """Warm each system up, then run all in turns, `rounds` times."""
    measured = {name: Measured() for name in systems}
    for run in tqdm(systems.values(), desc="warming up"):
        run(warming_up=True)
    turns = [turn for _ in range(rounds) for turn in systems.items()]
    for name, run in (bar := tqdm(turns, desc="measuring", unit="run")):
        reset_peak_memory()
        measured[name].seconds.append(run(warming_up=False))
        measured[name].memory = peak_memory()
        bar.write(f"  {name}: {measured[name].seconds[-1]:.1f} s", file=sys.stderr)
    return measured


def reset_peak_memory() -> None:
    """Forget the highest use of memory so far."""
    if CUDA:
        torch.cuda.reset_peak_memory_stats()
    elif Path("/proc/self/clear_refs").exists():
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def peak_memory() -> float | None:
    """GiB that were in use at most since it was reset: of the GPU, else of this process (None off Linux)."""
    if CUDA:
        return round(torch.cuda.max_memory_allocated() / 2**30, 2)
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    kibibytes = next(line.split()[1] for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return round(int(kibibytes) / 2**20, 2)


def peak_flops() -> float | None:
    """Operations a second that the device can do: by its datasheet; of a CPU by a large float32 matrix product."""
    if CUDA:
        return next((peak for name, peak in PEAK_FLOPS.items() if name in torch.cuda.get_device_name()), None)
    a, seconds = torch.randn(2048, 2048), []
    for _ in range(5):
        begun = time.perf_counter()
        a @ a
        seconds.append(time.perf_counter() - begun)
    return 2 * 2048**3 / min(seconds)
