"""Stage 2: freeze the model of stage 1 and train adapters for emotion, gender and style (eqs. 5 to 7).

accelerate launch run_stage2.py --fold 1
accelerate launch run_stage2.py --fold 1 --stage1 me/xlsr-ser-stage1 --corpus folder --data_dir my_recordings
"""

from pathlib import Path

from transformers import set_seed

from ser_mtl.cli import command_line
from ser_mtl.corpora.folds import split
from ser_mtl.corpora.targets import label_sets
from ser_mtl.evaluation.calibration import calibration
from ser_mtl.training.arguments import Stage2Arguments
from ser_mtl.training.outcome import predict_dev, predict_test, results_of, save_run, show
from ser_mtl.training.publication import check_publication, publish
from ser_mtl.training.run_folder import check_run_folder, run_record
from ser_mtl.training.start import check_stage1_never_heard, choose_stage1, stage2_start
from ser_mtl.training.steps import (
    build_trainer,
    load_corpus,
    look_for_leaks,
    parse_arguments,
    train,
    training_rows,
)


def main() -> None:
    """Corpus and stage-1 model in; adapters, their figures and their card out."""
    corpus_args, method, args = parse_arguments(stage=2, method=Stage2Arguments)
    choose_stage1(method, corpus_args)
    record = run_record(2, corpus_args, method, args)
    if finished := check_run_folder(Path(args.output_dir), record):
        show(finished, args)
        return publish(args)
    check_publication(args, method.stage1 if method.trainable == "adapters" else None)
    set_seed(args.seed)

    corpus = load_corpus(corpus_args, args)
    splits = split(corpus, corpus_args.fold, corpus_args.dev)
    leaks = look_for_leaks(splits, args)
    start = stage2_start(method, label_sets(corpus, method.tasks))
    check_stage1_never_heard(method.stage1, corpus_args, splits["test"])
    corpus, data = training_rows(corpus, splits, start, method, args)

    trainer = build_trainer(corpus, data, start, method, args)
    trained = train(trainer, record)

    rows, dev_rows = predict_test(trainer, data, start), predict_dev(trainer, data)
    measured = trained | {"leaks": leaks, "calibration": calibration(rows, dev_rows)}
    results = results_of(record, measured, splits, start, rows)
    save_run(trainer, record, results, rows, splits)
    show(results, args)
    publish(args)


if __name__ == "__main__":
    command_line(main)
