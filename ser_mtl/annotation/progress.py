"""The progress bar of `ser-mtl annotate`, over all processes."""

import os
import time
from pathlib import Path

from tqdm import tqdm

from ser_mtl.annotation.plan import Plan
from ser_mtl.annotation.shards import path_of

_SECONDS_BETWEEN_LOOKS = 1.0


class Progress:
    """A bar of recordings: those of the shards in the folder, whichever process wrote them, and of this process.

    Args:
        plan: of the annotation.
        output_dir: folder of the shards.
        shown: whether this process shows the bar; one process of a machine does.
    """

    def __init__(self, plan: Plan, output_dir: Path, shown: bool):
        sizes = {path_of(output_dir, number).name: len(files) for number, files in enumerate(plan["shards"])}
        self._folder, self._sizes, self._looked = output_dir, sizes, 0.0
        before = self._finished()
        total = sum(sizes.values())
        self._bar = tqdm(total=total, initial=before, desc="annotating", unit="file", disable=None if shown else True)
        self._known = before

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.close()

    def show(self, own: int = 0) -> None:
        """Move the bar, at most once a second; `own` is the number of recordings answered in the current shard."""
        if self._bar.disable or time.monotonic() - self._looked < _SECONDS_BETWEEN_LOOKS:
            return
        self._looked = time.monotonic()
        self._known = max(self._known, self._finished())
        self._bar.update(max(0, self._known + own - self._bar.n))

    def _finished(self) -> int:
        return sum(self._sizes.get(name, 0) for name in os.listdir(self._folder))
