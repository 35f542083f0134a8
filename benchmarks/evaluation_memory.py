"""Peak memory of an evaluation beyond what was in use before it, by size of the test set.

python benchmarks/evaluation_memory.py
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.measuring import peak_memory, reset_peak_memory
from benchmarks.ours import QUIET, prepare_stage1
from benchmarks.workload import scratch_folder, utterances_of_batches, write_noise
from ser_mtl.model.demo_encoder import demo_encoder
from ser_mtl.training.arguments import SerMtlArguments

TIMES = (1, 4, 16)


def main() -> None:
    """Predict the same utterances repeated 1, 4 and 16 times."""
    with scratch_folder() as folder:
        encoder = demo_encoder(folder / "encoder")
        write_noise(folder / "noise", utterances_of_batches(6))
        run = SerMtlArguments(output_dir=str(folder / "run"), report_to="none", **QUIET)
        trainer = prepare_stage1(Path(encoder), folder / "noise", run).trainer
        rows = trainer.train_dataset
        trainer.predict(rows)  # caches and buffers that stay allocated
        for times in TIMES:
            repeated = rows.select(list(range(len(rows))) * times)
            reset_peak_memory()
            before = peak_memory()
            trainer.predict(repeated)
            print(f"{len(repeated):6} utterances: {1024 * (peak_memory() - before):6.0f} MiB more than before it")


if __name__ == "__main__":
    main()
