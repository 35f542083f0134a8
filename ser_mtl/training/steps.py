"""The steps that both stages share, from the command line to a trained model, in the order a script takes them."""

import os
import sys
from pathlib import Path
from typing import NoReturn

import numpy as np
from datasets import Dataset, DatasetDict
from transformers import HfArgumentParser

from ser_mtl.corpora.audio import SAMPLING_RATE, with_samples
from ser_mtl.corpora.batching import Collator
from ser_mtl.corpora.demo.corpus import make_demo_corpus
from ser_mtl.corpora.folder import read_folder
from ser_mtl.corpora.iemocap import read_iemocap
from ser_mtl.corpora.leaks import find_leaks, leaks_line
from ser_mtl.corpora.targets import check_annotated, with_targets
from ser_mtl.errors import UserError
from ser_mtl.files import write_json
from ser_mtl.model.front_end import front_end_is_frozen, with_features
from ser_mtl.research.gradients import GradientCosines
from ser_mtl.training.adapters import unwrap
from ser_mtl.training.arguments import CorpusArguments, MethodArguments, RunArguments
from ser_mtl.training.callbacks import SparingCheckpoints
from ser_mtl.training.oracle import MeasureTestFold
from ser_mtl.training.run_folder import last_checkpoint
from ser_mtl.training.start import Start
from ser_mtl.training.trainer import SerMtlTrainer

DEMO_FOLDER = Path("runs/demo")


class Parser(HfArgumentParser):
    """A command line of dataclasses, whose mistakes are one line."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong in one line; argparse would print every flag before it."""
        raise UserError(f"{message}; --help explains every flag")


def parse_arguments(stage: int, method: type[MethodArguments]) -> tuple[CorpusArguments, MethodArguments, RunArguments]:
    """Read the command line.

    Raises:
        UserError: a flag that does not exist, or a value that does not make sense.
        SystemExit: `--help`.
    """
    parser = Parser((CorpusArguments, method, RunArguments), description=sys.modules["__main__"].__doc__)
    values = vars(parser.parse_args())
    values["output_dir"] = values["output_dir"] or f"runs/{values['corpus']}/stage{stage}/fold{values['fold']}"
    if values["selection"] == "dev" and values["dev"] == "none":
        raise UserError("--selection dev needs a development set: --dev dialog or session, or --selection last")
    when = values["eval_strategy"], values["save_strategy"]
    if values["selection"] != "last" and when not in (("epoch", "epoch"), ("steps", "steps")):
        raise UserError(
            f"--selection {values['selection']} needs --eval_strategy and --save_strategy to be both epoch or both "
            f"steps, not {when[0]} and {when[1]}"
        )
    values["load_best_model_at_end"] = values["selection"] != "last"
    if values["selection"] == "last" and values["dev"] == "none":
        values["eval_strategy"] = "no"
    if "emotion" not in values["tasks"]:
        values["metric_for_best_model"] = None
    try:
        corpus, method, run = parser.parse_dict(values)
    except (ValueError, OSError, ImportError) as error:  # of TrainingArguments, which names the flag, on some lines
        raise UserError(" ".join(str(error).split())) from error
    if method.gradient_surgery != "none" and (run.world_size > 1 or run.fp16):
        raise UserError("--gradient_surgery pcgrad works in one process and without --fp16")
    figures = {"asr": ("wer", "cer"), "emotion": ("ua", "wa", "macro_f1")}
    known = ["loss", *(f"{task}_{name}" for task in method.tasks for name in figures.get(task, ("ua", "wa")))]
    if method.selection != "last" and (run.metric_for_best_model or "").removeprefix("eval_") not in known:
        raise UserError(f"--metric_for_best_model {run.metric_for_best_model}: must be one of {', '.join(known)}")
    return corpus, method, run


def read_corpus(args: CorpusArguments) -> Dataset:
    """Read a corpus from disk (the demo's is synthesised first), one row an utterance."""
    if args.corpus == "folder":
        return read_folder(args.data_dir)
    if args.corpus == "demo":
        folder = Path(args.data_dir[0]) if args.data_dir else DEMO_FOLDER / "corpus"
        return read_iemocap(make_demo_corpus(folder), check_counts=False)
    folder = args.data_dir[0] if args.data_dir else os.environ.get("IEMOCAP_DIR", "IEMOCAP_full_release")
    return read_iemocap(Path(folder), check_counts=not args.no_check_counts)


def load_corpus(args: CorpusArguments, run: RunArguments) -> Dataset:
    """Read a corpus with its samples, and number its rows; one process decodes, the others wait for it."""
    with run.main_process_first(desc="reading the corpus"):
        corpus = with_samples(read_corpus(args))
    return corpus.add_column("row", list(range(len(corpus))))


def look_for_leaks(splits: DatasetDict, run: RunArguments) -> dict:
    """What `ser_mtl.corpora.leaks.find_leaks` finds, said in one line before anything is trained."""
    leaks = find_leaks(splits)
    if run.process_index == 0:
        print(leaks_line(leaks))
    return leaks


def training_rows(
    corpus: Dataset, splits: DatasetDict, start: Start, method: MethodArguments, run: RunArguments
) -> tuple[Dataset, DatasetDict]:
    """Add what the model takes in: targets, and features in place of samples where the front end is frozen.

    Returns:
        The whole corpus and its splits; dev and test sorted by length, which leaves almost no padding.

    Raises:
        UserError: a task that no training utterance, or emotion that no utterance of a split is annotated for; soft
            labels of a corpus without raters.
    """
    check_annotated(splits, unwrap(start.model).config.tasks)
    tokenizer = start.processor.tokenizer if "asr" in unwrap(start.model).config.tasks else None
    corpus = with_targets(corpus, start.labels, tokenizer, method.soft_labels)
    if front_end_is_frozen(unwrap(start.model)):
        with run.main_process_first(desc="front end"):
            corpus = with_features(corpus, unwrap(start.model), start.processor.feature_extractor, run.device)
    inputs = ["row", "length", *({"samples", "features", "frames"} & set(corpus.column_names))]
    targets = [name for name in corpus.column_names if name.endswith("_labels")]
    numbers = corpus.select_columns(inputs + targets).with_format("numpy")
    rows = {name: np.asarray(part["row"]) for name, part in splits.items()}
    lengths = np.asarray(corpus["length"])
    for name in {"dev", "test"} & set(rows):
        rows[name] = rows[name][np.argsort(lengths[rows[name]], kind="stable")]
    return corpus, DatasetDict({name: numbers.select(chosen) for name, chosen in rows.items()})


def build_trainer(
    corpus: Dataset, data: DatasetDict, start: Start, method: MethodArguments, run: RunArguments
) -> SerMtlTrainer:
    """A Trainer that evaluates on what the selection rule looks at."""
    trainer = SerMtlTrainer(
        corpus=corpus,
        labels=start.labels,
        gradient_surgery=method.gradient_surgery == "pcgrad",
        model=start.model,
        args=run,
        train_dataset=data["train"],
        eval_dataset=data["test"] if method.selection == "oracle" else data.get("dev"),
        data_collator=Collator(start.processor.feature_extractor),
        processing_class=start.processor,
    )
    if run.gradient_cosines and len(method.tasks) > 1 and method.trainable != "heads":
        trainer.add_callback(GradientCosines(run.output_dir, trainer.stopwatch))
    trainer.add_callback(SparingCheckpoints(run.save_minutes))
    if method.measure_oracle:
        trainer.add_callback(MeasureTestFold(trainer, data["test"]))
    return trainer


def train(trainer: SerMtlTrainer, record: dict) -> dict:
    """Train, going on from the last checkpoint where there is one.

    Returns:
        "epoch", the one that was kept; "minutes" and "audio_seconds_per_second" of all training.
    """
    folder = Path(trainer.args.output_dir)
    if trainer.is_world_process_zero():
        write_json(folder / "args.json", record)
    trainer.accelerator.wait_for_everyone()
    trainer.train(resume_from_checkpoint=last_checkpoint(folder))
    state = trainer.state
    kept = (state.best_global_step if trainer.args.load_best_model_at_end else None) or state.global_step
    seconds_an_epoch = float(np.sum(trainer.train_dataset["length"])) / SAMPLING_RATE
    seconds = trainer.stopwatch.seconds
    return {
        "epoch": round(kept * state.epoch / state.global_step, 2),
        "minutes": round(seconds / 60, 2),
        "audio_seconds_per_second": round(seconds_an_epoch * state.epoch / seconds, 1),
    }
