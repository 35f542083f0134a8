"""The gain of each speed optimisation: epochs of stage 1 with all of them and without some, in turns.

python benchmarks/levers.py --batches 6 --rounds 3
"""

import argparse
import statistics
import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from torch.utils.data import RandomSampler

from benchmarks.measuring import Epoch, measure, train_an_epoch
from benchmarks.ours import QUIET, prepare_stage1
from benchmarks.workload import scratch_folder, utterances_of_batches, write_noise
from modeling_ser_mtl import SerMtlOutput
from ser_mtl.model.demo_encoder import demo_encoder
from ser_mtl.training.arguments import SerMtlArguments
from ser_mtl.training.trainer import SerMtlTrainer


class StockFrontEnd(SerMtlTrainer):
    """A trainer whose model runs the encoder's own front end, channels first."""

    def _forward(self, model: torch.nn.Module, inputs: dict[str, torch.Tensor]) -> SerMtlOutput:
        return model(**{name: value for name, value in inputs.items() if name != "row"})


def without_levers(encoder: Path, folder: Path) -> dict[str, SerMtlTrainer]:
    """Trainers of stage 1 with all optimisations, and without some of them."""
    names = (
        "all",
        "random batches",
        "front end in every step",
        "front end in every step, channels first",
        "front end trained",
        "front end trained, channels first",
    )
    trainers = {}
    for name in names:
        cache = "never" if "every step" in name else "auto"
        run = {"output_dir": str(folder / "run"), "num_train_epochs": 1, "front_end_cache": cache} | QUIET
        train_front_end = "trained" in name
        trainers[name] = prepare_stage1(encoder, folder / "noise", SerMtlArguments(**run), train_front_end).trainer
    trainers["random batches"]._get_train_sampler = lambda rows=None: RandomSampler(trainers["all"].train_dataset)
    for name, trainer in trainers.items():
        if "channels first" in name:
            trainer.__class__ = StockFrontEnd
    return trainers


def main() -> None:
    """Print the seconds of an epoch, and their ratio to those with all optimisations."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, default=6, help="batches of 16 in an epoch")
    parser.add_argument("--rounds", type=int, default=3, help="epochs of each")
    args = parser.parse_args()
    with scratch_folder() as folder:
        write_noise(folder / "noise", utterances_of_batches(args.batches))
        runs = {}
        for name, trainer in without_levers(demo_encoder(folder / "encoder"), folder).items():
            trainer.add_callback(clock := Epoch())
            runs[name] = partial(train_an_epoch, trainer, clock)
        measured = measure(runs, args.rounds)
    everything = measured["all"].seconds
    for name, system in measured.items():
        ratio = statistics.median(other / all_ for other, all_ in zip(system.seconds, everything, strict=True))
        print(f"{name:42} {statistics.median(system.seconds):7.1f} s {ratio:6.2f} x")


if __name__ == "__main__":
    main()
