"""Measurements of a training: seconds in turns, peak memory, peak operations, and waits for the device."""

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
"""Events of a profile where the program waits for the GPU: values read from it, copies to and from it."""

_STATUS = Path("/proc/self/status")


class Epoch(TrainerCallback):
    """Times an epoch, from its first batch to the end of its last update."""

    def on_epoch_begin(self, args, state, control, **kwargs):
        """Start the clock."""
        self.begun = now()

    def on_epoch_end(self, args, state, control, **kwargs):
        """Stop it."""
        self.seconds = now() - self.begun


def now() -> float:
    """The clock in seconds, once the device has finished its queue."""
    if CUDA:
        torch.cuda.synchronize()
    return time.perf_counter()


def train_an_epoch(trainer: Trainer, clock: Epoch, warming_up: bool) -> float:
    """Seconds of an epoch, or of its first update when warming up."""
    trainer.args.max_steps = 1 if warming_up else -1
    Trainer.train(trainer)  # the training alone: no run folder, no model saved
    return clock.seconds


class Watch(TrainerCallback):
    """Profiles `UPDATES` updates after the first `FIRST`."""

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
    """Waits for the device per update, by the profiler's name of the event; empty if there are none."""
    trainer.add_callback(watch := Watch())
    trainer.args.max_steps = watch.FIRST + watch.UPDATES
    Trainer.train(trainer)  # the training alone: no run folder, no model saved
    trainer.remove_callback(watch)
    return {event.key: event.count / watch.UPDATES for event in watch.seen.key_averages() if event.key in WAITS}


@dataclass
class Measured:
    """Seconds of a system in each round, and its peak GiB: of the GPU, else of this process."""

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
    """Start the measurement of peak memory anew."""
    if CUDA:
        torch.cuda.reset_peak_memory_stats()
    elif Path("/proc/self/clear_refs").exists():
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def peak_memory() -> float | None:
    """Peak GiB since it was reset: of the GPU, else of this process (None off Linux)."""
    if CUDA:
        return round(torch.cuda.max_memory_allocated() / 2**30, 2)
    return round(resident_bytes("VmHWM") / 2**30, 2) if _STATUS.exists() else None


def resident_bytes(which: str) -> int:
    """Memory of this process that Linux reports: `VmRSS` now, `VmHWM` at its peak."""
    return 1024 * int(next(line.split()[1] for line in _STATUS.read_text().splitlines() if line.startswith(which)))


def peak_flops() -> float | None:
    """Operations a second of the device: by its datasheet; of a CPU, measured on a float32 matrix product."""
    if CUDA:
        return next((peak for name, peak in PEAK_FLOPS.items() if name in torch.cuda.get_device_name()), None)
    a, seconds = torch.randn(2048, 2048), []
    for _ in range(5):
        begun = time.perf_counter()
        a @ a
        seconds.append(time.perf_counter() - begun)
    return 2 * 2048**3 / min(seconds)
