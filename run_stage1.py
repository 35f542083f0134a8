"""Stage 1: finetune all of a pretrained speech encoder for emotion and speech recognition (eq. 4).

accelerate launch run_stage1.py --fold 1      on one device also: python run_stage1.py --fold 1
python run_stage1.py --fold 1 --corpus folder --data_dir my_recordings --num_train_epochs 20
python run_stage1.py run.yaml --seed 1
"""

from pathlib import Path

from ser_mtl.cli import command_line
from ser_mtl.corpora.folds import split
from ser_mtl.recipe import (
    build_trainer,
    look_for_leaks,
    note_changes,
    parse_settings,
    read_corpus,
    record_of,
    settle_tasks,
    show_classes,
)
from ser_mtl.training.outcome import show
from ser_mtl.training.publication import check_publication, publish
from ser_mtl.training.run_folder import check_run_folder
from ser_mtl.training.stage import Stage1


def main() -> None:
    """Corpus in; a model, its metrics and its card out."""
    settings = parse_settings(Stage1)
    corpus_args, stage, args, _ = settings
    record = record_of(settings)
    if results := check_run_folder(Path(args.output_dir), record):
        note_changes(settings)
        show(results, args)
        return publish(args)
    check_publication(args, record["method"]["encoder"] if stage.trainable == "adapters" else None)

    corpus = read_corpus(corpus_args, args)
    parts = split(corpus, corpus_args.fold, corpus_args.dev)
    settle_tasks(settings, parts, record)
    show_classes(parts, stage, args)
    leaks = look_for_leaks(parts, args)

    trainer = build_trainer(settings, parts, record)
    trainer.train()

    results = trainer.finish(None if corpus_args.refit else leaks)
    show(results, args)
    publish(args)


if __name__ == "__main__":
    command_line(main)
