"""Which GPU trains XLS-R 300m, with which flags and in how many hours: computed, not measured. Needs no GPU.

python benchmarks/budget.py
python benchmarks/budget.py --share 0.4 --json budget.json

Memory is what all tensors of an update take at its fullest moment, for the longest utterance of IEMOCAP. Hours are the
operations of 200 epochs of a fold, at an assumed share of the card's peak; evaluations are not in them.
"""

import argparse
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch
from tqdm import tqdm

from benchmarks.measuring import PEAK_FLOPS
from benchmarks.updates import FRAMES_A_SECOND, Cost, Update, cost_of
from benchmarks.workload import BATCH_SIZE, iemocap_lengths, xls_r_300m
from ser_mtl.corpora.batching import LengthGroupedSampler
from ser_mtl.files import write_json

EPOCHS = 200
STAGES = (1, 2)
SPARE, RUNTIME = 1.1, 0.7e9
"""Assumed: memory that the allocator takes for each byte requested, and bytes of CUDA and its libraries."""


@dataclass(frozen=True)
class Card:
    """A GPU by its datasheet.

    Attributes:
        name: product name.
        bytes: memory.
        flops: dense operations a second in `dtype`.
        dtype: its half precision.
    """

    name: str
    bytes: float
    flops: float
    dtype: torch.dtype = torch.bfloat16


CARDS = (
    Card("T4, 16 GB", 16e9, 65e12, torch.float16),
    Card("RTX 4090, 24 GB", 24e9, 165e12),
    Card("A100, 40 GB", 40e9, PEAK_FLOPS["A100"]),
    Card("A100, 80 GB", 80e9, PEAK_FLOPS["A100"]),
    Card("H100, 80 GB", 80e9, PEAK_FLOPS["H100"]),
    Card("H200, 141 GB", 141e9, PEAK_FLOPS["H200"]),
)


@dataclass(frozen=True)
class Flags:
    """Flags of a run that divide an update of 16 utterances or recompute its activations."""

    accumulation: int = 1
    checkpointing: bool = False

    def __str__(self) -> str:
        words = [f"--gradient_accumulation_steps {self.accumulation}"] if self.accumulation > 1 else []
        return " ".join([*words, *(["--activation_checkpointing"] if self.checkpointing else [])])


STEPS = (1, 2, 4, 8, 16)
BATCHES = [BATCH_SIZE // n for n in STEPS]
FASTEST_FIRST = [*(Flags(n) for n in STEPS[:3]), *(Flags(n, checkpointing=True) for n in STEPS)]
"""Batches of one or two utterances leave a GPU idle, and so come after checkpointing."""


@cache
def cost(update: Update) -> Cost:
    """The cost of an update of XLS-R 300m, the same in both half precisions."""
    return cost_of(xls_r_300m(), update)


def longest_update(stage: int, flags: Flags, dtype: torch.dtype) -> Update:
    """The update with IEMOCAP's longest utterance, to whose length its whole batch is padded."""
    frames = int(iemocap_lengths().max() * FRAMES_A_SECOND)
    dtype = torch.float32 if dtype == torch.float32 else torch.bfloat16
    steps = min(2, flags.accumulation)
    return Update(stage, BATCH_SIZE // flags.accumulation, frames, dtype, flags.checkpointing, steps)


def needed(stage: int, flags: Flags, dtype: torch.dtype) -> float:
    """Bytes that a card must have."""
    return SPARE * cost(longest_update(stage, flags, dtype)).peak + RUNTIME


def flags_that_fit(card: Card, stage: int) -> Flags | None:
    """The fastest flags that fit into a card; None if none do."""
    return next((flags for flags in FASTEST_FIRST if needed(stage, flags, card.dtype) <= card.bytes), None)


def operations(stage: int, checkpointing: bool) -> float:
    """Operations of all epochs of a fold, padding included.

    Those of an utterance of n frames are a n + b n^2; two lengths give a and b.
    """
    longest = longest_update(stage, Flags(checkpointing=checkpointing), torch.bfloat16)
    short = Update(stage, 1, 400, checkpointing=checkpointing)
    counted = [cost(update).flops / update.batch for update in (short, longest)]
    factors = np.linalg.solve([[n, n**2] for n in (short.frames, longest.frames)], counted)
    seconds = iemocap_lengths()
    order = list(LengthGroupedSampler(seconds, BATCH_SIZE, seed=0))
    padded = [np.full(len(b), b.max()) for b in np.split(seconds[order], range(BATCH_SIZE, len(order), BATCH_SIZE))]
    frames = np.concatenate(padded) * FRAMES_A_SECOND
    return EPOCHS * 0.8 * float((factors[0] * frames + factors[1] * frames**2).sum())


def hours(card: Card, stage: int, flags: Flags, share: float) -> float:
    """Hours of a stage of a fold, at a share of the card's peak."""
    return operations(stage, flags.checkpointing) / (share * card.flops) / 3600


def rows_of_memory() -> Iterator[dict]:
    """The cost of an update for each stage, precision, batch size and use of checkpointing."""
    kinds = [(torch.bfloat16, False), (torch.bfloat16, True), (torch.float32, False)]
    cases = [(stage, dtype, Flags(n, again)) for stage in STAGES for dtype, again in kinds for n in STEPS]
    for stage, dtype, flags in tqdm(cases, desc="counting", leave=False):
        update = longest_update(stage, flags, dtype)
        row = {"stage": stage, "precision": _name(dtype), "batch": update.batch, "checkpointing": flags.checkpointing}
        yield row | {"accumulation": flags.accumulation} | asdict(cost(update))


def rows_of_cards(share: float) -> Iterator[dict]:
    """For each card and stage: the flags that fit, GB of its memory that they take, and hours."""
    for card in CARDS:
        for stage in STAGES:
            flags = flags_that_fit(card, stage)
            row = {"card": card.name, "precision": _name(card.dtype), "stage": stage}
            if flags is None:
                yield row | {"flags": None, "gb": None, "hours": None}
            else:
                gb = needed(stage, flags, card.dtype) / 1e9
                half = "--fp16 True " if card.dtype == torch.float16 else ""  # bf16 needs no flag
                yield row | {"flags": f"{half}{flags}".strip(), "gb": gb, "hours": hours(card, stage, flags, share)}


def _name(dtype: torch.dtype) -> str:
    return {torch.bfloat16: "bf16", torch.float16: "fp16", torch.float32: "fp32"}[dtype]


def show(memory: list[dict], cards: list[dict], share: float) -> None:
    """Print both tables."""
    print("\nComputed, not measured: GB of all tensors of an update with utterances of 34 seconds, XLS-R 300m.")
    print(f"{'stage':5} {'precision':10} {'checkpointing':13} " + "".join(f"{f'batch {n}':>10}" for n in BATCHES))
    kinds = dict.fromkeys((row["stage"], row["precision"], row["checkpointing"]) for row in memory)
    for kind in kinds:
        own = [row for row in memory if (row["stage"], row["precision"], row["checkpointing"]) == kind]
        name = {"bf16": "bf16, fp16"}.get(kind[1], kind[1])
        peaks = "".join(f"{row['peak'] / 1e9:10.1f}" for row in own)
        print(f"{kind[0]:5} {name:10} {'yes' if kind[2] else 'no':13} {peaks}")
    print(f"\nComputed: a fold of IEMOCAP, {EPOCHS} epochs, at {100 * share:.0f} % of the card's peak (assumed).")
    print(f"{'card':16} {'precision':9} {'stage':5} {'GB':>6} {'hours':>6}  flags")
    for row in cards:
        figures = (
            "  does not fit"
            if row["flags"] is None
            else f"{row['gb']:6.1f} {row['hours']:6.1f}  {row['flags'] or 'none needed'}"
        )
        print(f"{row['card']:16} {row['precision']:9} {row['stage']:5} {figures}")


def main() -> None:
    """Count, print, and write json where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--share", type=float, default=0.3, help="assumed share of a card's peak [0.3]")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where the figures are written")
    args = parser.parse_args()
    memory = list(rows_of_memory())
    cards = list(rows_of_cards(args.share))
    show(memory, cards, args.share)
    if args.json:
        write_json(args.json, {"share_of_peak": args.share, "memory": memory, "cards": cards})


if __name__ == "__main__":
    main()
