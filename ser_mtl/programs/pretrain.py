"""Continue an encoder's pretraining on the training set of a fold, without labels: the first step of TAPT and P-TAPT.

python -m ser_mtl.programs.pretrain --fold 1 --objective contrastive --output_dir runs/tapt
python -m ser_mtl.programs.pretrain --fold 1 --objective units --frames runs/frames --output_dir runs/ptapt
python run_stage1.py --fold 1 --tasks emotion --encoder runs/tapt

It takes the flags of run_stage1.py; those for heads and losses have no effect. See docs/earlier_systems.md.
"""

import sys
from pathlib import Path

from transformers.trainer_utils import IntervalStrategy

from ser_mtl.cli import command_line
from ser_mtl.corpora.folds import split
from ser_mtl.corpora.loading import name_in_results
from ser_mtl.errors import UserError
from ser_mtl.files import write_json, write_text
from ser_mtl.recipe import Settings, parse_settings, read_corpus, record_of
from ser_mtl.research.contrastive import contrastive_pretrainer
from ser_mtl.research.heads import CARD
from ser_mtl.research.masked_units import units_pretrainer
from ser_mtl.research.pretraining import Pretrainer, Pretraining
from ser_mtl.training.arguments import SerMtlArguments
from ser_mtl.training.outcome import clear_up, progress_of
from ser_mtl.training.run_folder import check_run_folder
from ser_mtl.training.stage1_start import XLS_R


def main() -> None:
    """Corpus in; an encoder for stage 1 out."""
    settings = settings_of(sys.argv[1:])
    corpus_args, stage, args, _ = settings
    assert isinstance(stage, Pretraining)
    folder = Path(args.output_dir)
    record = record_of(settings) | {"script": "python -m ser_mtl.programs.pretrain"}
    if check_run_folder(folder, record):
        return print(f"{folder}: is finished")

    parts = split(read_corpus(corpus_args, args), corpus_args.fold, corpus_args.dev)
    make = contrastive_pretrainer if stage.objective == "contrastive" else units_pretrainer
    trainer = make(stage, args, parts)
    trainer.train_in(folder, record, trainer.split_record(corpus_args.fold or 1, corpus_args.dev))

    trainer.save(folder)
    write_results(trainer, stage, args, record)
    print(f"Encoder for --encoder of run_stage1.py: {folder}")


def settings_of(words: list[str]) -> Settings:
    """Read the command line. Settings for evaluation and publication are turned off: there is none.

    Raises:
        UserError: a flag that does not exist, or a value that does not make sense.
    """
    settings = parse_settings(Pretraining, ["--recipe", "paper", *words])
    _, stage, args, _ = settings
    assert isinstance(stage, Pretraining)
    if args.world_size > 1:
        raise UserError("pretraining works in one process: start it without accelerate launch")
    if args.publish:
        raise UserError("--push_to_hub: an encoder for stage 1 is not published; drop it")
    stage.encoder = stage.encoder or XLS_R
    args.selection, args.load_best_model_at_end = "last", False
    args.eval_strategy, args.measure_oracle = IntervalStrategy.NO, False
    return settings


def write_results(trainer: Pretrainer, stage: Pretraining, args: SerMtlArguments, record: dict) -> None:
    """Complete the run's folder; `results.json`, without scores, is the sign that it is finished."""
    folder, what = Path(args.output_dir), f"pretraining, {stage.objective}"
    write_json(folder / "history.json", trainer.state.log_history)
    write_text(folder / "README.md", CARD.format(what=what))
    results = {
        "stage": 1,
        "fold": record["corpus"]["fold"],
        "seed": args.seed,
        "corpus": name_in_results(record["corpus"]["corpus"]),
        "encoder": stage.encoder,
        "tasks": ["pretraining"],
        "trainable": stage.trainable,
        "selection": args.selection,
        "research": what,
        **progress_of(trainer),
        **{name: record[name] for name in ("commit", "versions")},
        "test": {},
    }
    write_json(folder / "results.json", results)
    clear_up(folder)


if __name__ == "__main__":
    command_line(main)
