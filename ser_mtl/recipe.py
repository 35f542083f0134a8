"""The steps that both stage scripts share: reading the command line, and building the Trainer it asks for."""

import json
import os
import shutil
import sys
import warnings
from argparse import SUPPRESS, RawDescriptionHelpFormatter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, fields
from functools import partial
from pathlib import Path
from typing import NamedTuple

from datasets import Dataset, DatasetDict
from transformers import HfArgumentParser, TrainingArguments
from transformers.hf_argparser import string_to_bool
from transformers.utils import logging

from ser_mtl.corpora.dealing import ALL, Fold
from ser_mtl.corpora.folds import split
from ser_mtl.corpora.leaks import find_leaks, leaks_line
from ser_mtl.corpora.loading import name_in_results, place_of_data
from ser_mtl.corpora.split_record import hash_of_annotations, split_record
from ser_mtl.corpora.targets import classes_table
from ser_mtl.corpora.utterances import joined
from ser_mtl.errors import UserError, notice
from ser_mtl.files import fitting, read_json, read_yaml
from ser_mtl.model.demo_encoder import demo_encoder
from ser_mtl.parsing import OneLineErrors, did_you_mean
from ser_mtl.research.arguments import ResearchArguments
from ser_mtl.training.arguments import CorpusArguments, SerMtlArguments, check_together
from ser_mtl.training.checks import local_or_hub
from ser_mtl.training.flags import DERIVED
from ser_mtl.training.recipes import FLAGS_OF_RECIPES, defaults_of, recipe_of
from ser_mtl.training.refit import refitting_trainer, with_dev_in_train
from ser_mtl.training.run_folder import NOT_THE_RUN, Record, changes_of_corpus, run_record, settings_of
from ser_mtl.training.stage import Stage, Stage1, Stage2
from ser_mtl.training.start import leave_out_unusable
from ser_mtl.training.trainer import SerMtlTrainer

# Redefined in `SerMtlArguments`, but not for everyday use: shown by --help_all.
_RARE = {
    "eval_accumulation_steps", "remove_unused_columns", "ddp_find_unused_parameters", "dataloader_pin_memory",
    "logging_nan_inf_filter", "label_names", "greater_is_better", "adam_beta2", "dataloader_num_workers",
    "logging_strategy", "eval_strategy", "save_strategy", "save_total_limit", "save_minutes", "metric_for_best_model",
    "per_device_eval_batch_size", "use_cpu", "front_end_cache", "hub_private_repo",
    "merge_asr", "merge_emotion", "merge",
}  # fmt: skip
_COMMON = {
    "seed": "Random seed.",
    "gradient_accumulation_steps": "Batches per update.",
    "activation_checkpointing": "Less memory, about 20 %% slower.",
}
"""Flags of transformers that --help shows too, in a line."""


class Settings(NamedTuple):
    """The arguments of a run, by subject."""

    corpus: CorpusArguments
    stage: Stage
    args: SerMtlArguments
    research: ResearchArguments


# ------------------------------------------------------------------------------------------------------- command line


_PLACEHOLDERS = {"fold": "N|all", "dir": "DIR", "id": "ID", "encoder": "DIR_OR_ID", "stage1": "DIR_OR_ID",
                 "tasks": "TASK", "asr": "DIR", "emotion": "DIR",
                 "model": "METRIC", "checkpoint": "DIR", "name": "NAME", "strategy": "WHEN", "to": "NAME"}  # fmt: skip
"""Placeholders of text values in the help, by the last word of the flag."""


class Formatter(RawDescriptionHelpFormatter):
    """Help with one spelling of each flag, short placeholders, and the default in brackets."""

    def __init__(self, prog: str):
        super().__init__(prog, max_help_position=36, width=min(120, shutil.get_terminal_size((122, 24)).columns - 2))

    def _format_action_invocation(self, action) -> str:
        if not action.option_strings:
            return super()._format_action_invocation(action)
        values = f" {{{','.join(map(str, action.choices))}}}" if action.choices else ""
        if not values and action.nargs != 0 and action.const is not True:
            kind = {int: "N", float: "X"}.get(action.type) or _PLACEHOLDERS.get(action.dest.split("_")[-1], "VALUE")
            values = f" {kind}" + (" ..." if action.nargs == "+" else "")
        return action.option_strings[0] + values

    def _get_help_string(self, action) -> str:
        text = action.help or ""
        quiet = action.default in (None, False, SUPPRESS, "", []) or text.endswith("]") or action.nargs == 0
        default = " ".join(map(str, action.default)) if isinstance(action.default, list) else action.default
        return text if quiet else f"{text} [{default}]"


class Parser(OneLineErrors, HfArgumentParser):
    """A command line of dataclasses."""


class StageParser(Parser):
    """The command line of a stage's script. `--help` shows the project's own flags, `--help_all` all."""

    def __init__(self, stage: type[Stage], description: str | None = None):
        subjects = (CorpusArguments, stage, SerMtlArguments, ResearchArguments)
        super().__init__(subjects, description=description, formatter_class=Formatter, allow_abbrev=False)
        order = [name for one in subjects for part in one.__mro__ for name in vars(part).get("__annotations__", {})]
        for group in self._action_groups:  # the model first, and flags of this project before those of transformers
            group._group_actions.sort(key=lambda action: order.index(action.dest) if action.dest in order else -1)
        for action in self._actions:  # `--layer_statistics` alone is "yes" in stage 2 too, where the default is None
            if action.type is string_to_bool and action.nargs is None:
                action.nargs, action.const = "?", True
        self.usage = "%(prog)s [FILE.yaml | args.json] --fold N [--flag value ...]"
        self.add_argument(
            "--help_all", action="store_true", help="Show rare flags and transformers' TrainingArguments too."
        )

    def print_help(self, file=None) -> None:
        """Print the project's own flags, by subject; with `--help_all` on the command line, all of them."""
        if "--help_all" not in sys.argv:
            rare = ({one.name for one in fields(TrainingArguments)} - set(SerMtlArguments.__annotations__)) | _RARE
            for action in self._actions:
                action.help = _COMMON.get(action.dest, action.help)
                if action.dest in rare - _COMMON.keys() or action.option_strings[:1] == [f"--no_{action.dest}"]:
                    action.help = SUPPRESS
        super().print_help(file)


def parse_settings(stage: type[Stage], argv: list[str] | None = None) -> Settings:
    """Read the command line, and the file that it may begin with.

    Raises:
        UserError: a flag that does not exist, or a value that does not make sense.
        SystemExit: `--help`.
    """
    logging.disable_progress_bar()  # transformers' own bars are for steps of milliseconds
    argv = sys.argv[1:] if argv is None else argv
    parser = StageParser(stage, sys.modules["__main__"].__doc__)
    if "--help_all" in argv:
        parser.print_help()
        sys.exit(0)
    if argv and Path(argv[0]).suffix in (".yaml", ".yml", ".json"):
        argv = [*words_of_file(Path(argv[0]), parser, stage.number), *argv[1:]]
    set_recipe(parser, stage, argv)
    values = vars(parser.parse_args(argv))
    del values["help_all"]
    if values["output_dir"] is None:
        name = name_in_results(values["corpus"])
        values["output_dir"] = f"runs/{name}/stage{stage.number}/{name_of_fold(values['fold'])}"
    settings = Settings(*parser.parse_dict(values))
    _fill_in(settings)
    corpus = settings.corpus
    check_together(settings.stage, settings.args, has_dev=corpus.dev != "none", has_test=corpus.fold != ALL)
    if corpus.refit and settings.args.selection != "dev":
        raise UserError(f"--refit: needs --selection dev, not {settings.args.selection}; drop one of the two")
    settings.research.settle(settings.stage, settings.args)
    return settings


def name_of_fold(fold: Fold | None) -> str:
    """Name of a run's folder, by the fold that it holds out; an official split counts as fold 1."""
    return ALL if fold == ALL else f"fold{fold or 1}"


def set_recipe(parser: StageParser, stage: type[Stage], words: list[str]) -> None:
    """Make the values of the recipe the defaults of a command line."""
    values = vars(parser.parse_args(words))
    flags = {option: action.dest for action in parser._actions for option in action.option_strings}
    given = {flags[word.split("=")[0]] for word in words if word.split("=")[0] in flags}
    recipe = values["recipe"] or recipe_of(values["corpus"])
    parser.set_defaults(recipe=recipe, **defaults_of(recipe, stage.number, {name: values[name] for name in given}))


def words_of_file(file: Path, parser: StageParser, stage: int) -> list[str]:
    """A yaml file, or the `args.json` of a run, as words of a command line.

    Of an `args.json`, settings of the machine and the output folder are left out.

    Raises:
        UserError: the file cannot be read, is of the other stage, or has a setting that is not a flag.
    """
    if not file.exists():
        raise UserError(f"{file}: no such file")
    content = read_yaml(file) if file.suffix != ".json" else read_json(file)
    flags = {action.dest: action for action in reversed(parser._actions)}  # --flag comes before --no_flag
    if "training" in content:
        fitting(content, Record, file)
        if content.get("stage") != stage:
            raise UserError(f"{file}: is of a stage-{content.get('stage')} run; use run_stage{content.get('stage')}.py")
        content = _settings_of_run(content, {name: flags[name].default for name in FLAGS_OF_RECIPES[stage]})
    words = []
    for name, value in content.items():
        if name not in flags:
            raise UserError(f"{file}: {name!r} is not a flag{did_you_mean(str(name), flags)}")
        if value not in (None, [], {}) and (value != flags[name].default or name in FLAGS_OF_RECIPES[stage]):
            words += [f"--{name}", *_as_words(value)]
    return words


def _settings_of_run(record: dict, before_recipes: dict) -> dict:
    """The settings in a run's `args.json`. `before_recipes`: those of runs that are older than recipes."""
    settings = before_recipes | settings_of(record)
    if "augment" in before_recipes:
        settings["augment"] = settings["augment"] or "none"  # else the recipe would set it
    kept = {name: value for name, value in settings.items() if name not in DERIVED and not name.startswith(NOT_THE_RUN)}
    batch = {"per_device_train_batch_size": settings["batch_size"]} if "batch_size" in settings else {}
    recipe = {"recipe": settings.get("recipe") or "paper"}  # before there were recipes, all runs had the paper's
    return {name: value for name, value in kept.items() if name != "batch_size"} | batch | recipe


def _as_words(value: object) -> list[str]:
    if isinstance(value, list):
        return [str(one) for one in value]
    return [json.dumps(value) if isinstance(value, dict) else str(value)]


def _fill_in(settings: Settings) -> None:
    """Set the model that the stage starts from, where the command line does not name it."""
    corpus, stage, args, _ = settings
    if isinstance(stage, Stage1) and stage.encoder is None and corpus.corpus == "demo":
        with args.main_process_first(desc="making the demo's encoder"):
            stage.encoder = local_or_hub(demo_encoder())
        stage.train_front_end = stage.trainable == "all"  # it is untrained
    if isinstance(stage, Stage2) and stage.stage1 is None:
        stage.stage1 = local_or_hub(f"runs/{name_in_results(corpus.corpus)}/stage1/{name_of_fold(corpus.fold)}")


# -------------------------------------------------------------------------------------------------------------- steps


def record_of(settings: Settings) -> dict:
    """The part of `args.json` that is known before the corpus is read."""
    stage, args = settings.stage, settings.args
    _as_before(stage, Path(args.output_dir) / "args.json")
    corpus = asdict(settings.corpus)
    corpus["fold"] = corpus["fold"] or 1  # an official split has one
    # Absolute, so that the run is recognised from another working directory.
    if corpus["data_dir"]:
        corpus["data_dir"] = [place_of_data(corpus["corpus"], folder) for folder in corpus["data_dir"]]
    if corpus["corpus"].endswith(".toml"):
        corpus["corpus"] = os.path.abspath(corpus["corpus"])
    return run_record(stage, args, corpus, f"run_stage{stage.number}.py", **asdict(settings.research))


def _as_before(stage: Stage, saved: Path) -> None:
    """Leave out the default tasks that the run in this folder found without annotation."""
    if os.path.isfile(saved):  # unlike a Path, it takes any name
        with suppress(UserError):  # a damaged file is reported where the folder is checked
            stage.leave_out(read_json(saved, Record).get("tasks_left_out", []))


def settle_tasks(settings: Settings, parts: DatasetDict, record: dict) -> None:
    """Leave out the default tasks that the corpus does not annotate, and name them in a line."""
    stage = settings.stage
    if left_out := leave_out_unusable(stage, parts, stage.default_tasks):
        record["method"] |= asdict(stage)
        record["tasks_left_out"] = left_out


def read_corpus(corpus: CorpusArguments, args: SerMtlArguments) -> Dataset:
    """Read the utterances of a corpus; one process makes the demo's, the others wait."""
    with args.main_process_first(desc="reading the corpus"):
        return corpus.load()


def note_changes(settings: Settings) -> None:
    """Say if the corpus has changed since a finished run. No audio is decoded, and nothing downloaded."""
    corpus, _, args, _ = settings
    if args.process_index or not corpus.data_dir or not all(map(os.path.isdir, corpus.data_dir)):
        return
    try:
        with warnings.catch_warnings(action="ignore"):
            parts = split(corpus.load(), corpus.fold, corpus.dev)
            parts = with_dev_in_train(parts) if corpus.refit and "dev" in parts else parts
        data = split_record(parts, corpus.fold or 1, corpus.dev)
        data |= {"labels": {}, "annotations": hash_of_annotations(joined(parts), settings.stage.tasks)}
        changes = changes_of_corpus(Path(args.output_dir), data)
    except UserError as error:
        changes = f"it cannot be read: {error}"
    if changes:
        notice(
            f"the corpus has changed since this run, whose scores follow ({changes}); for new ones, name another "
            "--output_dir"
        )


def show_classes(parts: DatasetDict, stage: Stage, args: SerMtlArguments) -> None:
    """Print how many utterances of each class the splits hold, and warn of a class that cannot be learned."""
    if args.process_index == 0:
        print(classes_table(parts, stage.tasks))


def look_for_leaks(parts: DatasetDict, args: SerMtlArguments) -> dict:
    """Count what test and training sets share, and print it in one line."""
    leaks = find_leaks(parts) if "test" in parts else {}
    if args.process_index == 0:
        print(leaks_line(leaks) if leaks else "Nothing is held out for a test (--fold all)")
    return leaks


def build_trainer(settings: Settings, parts: DatasetDict, record: dict) -> SerMtlTrainer:
    """The Trainer of a stage, with the experiments that flags ask for; with --refit, that of the second training."""
    corpus, stage, args, research = settings
    if corpus.refit:
        return refitting_trainer(partial(_trainer, research), stage, args, parts, record)
    return _trainer(research, stage, args, parts, record)


def _trainer(
    research: ResearchArguments, stage: Stage, args: SerMtlArguments, parts: DatasetDict, record: dict | None
) -> SerMtlTrainer:
    trainer_class: Callable[..., SerMtlTrainer] = SerMtlTrainer
    if research.gradient_surgery != "none":
        from ser_mtl.research.surgery import SurgeryTrainer

        trainer_class = partial(SurgeryTrainer, method=research.gradient_surgery)
    if research.merge_asr and research.merge_emotion:
        from ser_mtl.research.merging import MergeTrainer

        trainer_class = partial(MergeTrainer, asr=research.merge_asr, emotion=research.merge_emotion)
    if research.emotion_head != "none":
        from ser_mtl.research.heads import HeadTrainer

        trainer_class = partial(HeadTrainer, research.emotion_head, research.head_class())
    trainer = trainer_class(stage, args, parts, record=record)
    if research.gradient_cosines:
        from ser_mtl.research.cosines import GradientCosines

        trainer.add_callback(GradientCosines(args.output_dir, trainer))
    return trainer
