"""Stage 2: freeze the model of stage 1 and train adapters for emotion, gender and speaking style (eqs. 5 to 7).

accelerate launch run_stage2.py --fold 1      on one device also: python run_stage2.py --fold 1
python run_stage2.py --fold 1 --stage1 me/xlsr-ser-stage1 --corpus folder --data_dir my_recordings
python run_stage2.py run.yaml --seed 1
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
from ser_mtl.training.stage import Stage2


def main() -> None:
    """Corpus and stage-1 model in; adapters, their metrics and their card out."""
    settings = parse_settings(Stage2)
    corpus_args, stage, args, _ = settings
    record = record_of(settings)
    if results := check_run_folder(Path(args.output_dir), record):
        note_changes(settings)
        show(results, args)
        return publish(args)
    check_publication(args, record["method"]["stage1"] if stage.trainable == "adapters" else None)

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
