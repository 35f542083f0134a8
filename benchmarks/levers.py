"""What each lever of speed brings to stage 1: an epoch of it with all of them, and without each, in turns.

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
from modeling_ser_mtl import SerMtlModel
from ser_mtl.model.demo_encoder import demo_encoder
from ser_mtl.training.trainer import SerMtlTrainer


def features_with_channels_first(
    model: SerMtlModel, input_values: torch.Tensor, attention_mask: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """As transformers does it, without gradients where the front end is frozen."""
    with torch.set_grad_enabled(any(p.requires_grad for p in model.front_end_parameters())):
        features = model.encoder.feature_extractor(input_values).transpose(1, 2)
    return features, model.frame_lengths(attention_mask.sum(dim=1).long())


def without_levers(encoder: Path, folder: Path) -> dict[str, SerMtlTrainer]:
    """Stage 1 with all levers, and without some of them."""
    run = RunArguments(output_dir=str(folder / "run"), num_train_epochs=1, **QUIET)
    front_ends = {
        "all": "once",
        "random batches": "once",
        "front end in every step": "every step",
        "front end in every step, channels first": "every step",
        "front end trained": "trained",
        "front end trained, channels first": "trained",
    }
    trainers = {name: prepare_stage1(encoder, folder / "noise", run, how).trainer for name, how in front_ends.items()}
    trainers["random batches"]._get_train_sampler = lambda rows=None: RandomSampler(trainers["all"].train_dataset)
    for name, trainer in trainers.items():
        if "channels first" in name:
            trainer.model.extract_features = partial(features_with_channels_first, trainer.model)
    return trainers


def main() -> None:
    """Print the seconds of an epoch, and how many times those with all levers they are."""
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
