"""--refit: find the number of epochs on dev, then train the model again on train and dev.

No speaker is lost to dev, and nothing is selected on training utterances. It takes two trainings.
"""

from collections.abc import Callable
from copy import copy
from pathlib import Path

from datasets import DatasetDict, concatenate_datasets

from ser_mtl.errors import UserError
from ser_mtl.tasks import TASKS
from ser_mtl.training.arguments import SerMtlArguments
from ser_mtl.training.checkpoints import search_folder
from ser_mtl.training.heard import check_never_heard
from ser_mtl.training.method import Earlier
from ser_mtl.training.stage import Stage, Stage2
from ser_mtl.training.stage2_start import check_fits, read_stage1
from ser_mtl.training.trainer import SerMtlTrainer

Build = Callable[[Stage, SerMtlArguments, DatasetDict, dict | None], SerMtlTrainer]
"""Makes a Trainer from a stage, the arguments of training, the parts and the content of args.json."""


def with_dev_in_train(parts: DatasetDict) -> DatasetDict:
    """The parts of the second training: dev is joined to train."""
    others = {name: part for name, part in parts.items() if name not in ("train", "dev")}
    return DatasetDict({"train": concatenate_datasets([parts["train"], parts["dev"]]), **others})


def refitting_trainer(
    build: Build, stage: Stage, args: SerMtlArguments, parts: DatasetDict, record: dict
) -> SerMtlTrainer:
    """Find the number of epochs by a training that leaves dev out, and return the Trainer of the second training.

    The second training has the schedule of the first and stops at the epoch that the first one finds: the last within a
    standard error of the best. Its temperature is fitted on the first model's predictions, as that was not trained on
    dev. A finished first training is not repeated.

    Args:
        build: makes both Trainers.
        stage: the method. The first training of stage 2 starts from that of its stage 1, which left dev out too.
        args: of the run.
        parts: the split corpus.
        record: the content of args.json.

    Raises:
        UserError: there is no dev.
    """
    if "dev" not in parts:
        raise UserError("--refit: needs a development set, and this corpus has none; drop it")
    first = _search(build, stage, args, parts)
    again = copy(args)
    again.selection, again.load_best_model_at_end, again.min_updates = "last", False, 0
    again.early_stopping_patience = None  # it has no dev
    trainer = build(stage, again, with_dev_in_train(parts), record)
    trainer.dev_predictions, trainer.before_dev = first.dev_predictions, first.before_dev
    trainer.seconds_before = first.stopwatch.seconds
    state, updates = first.state, -(-len(trainer.train_dataset) // args.utterances_per_update)
    trainer.updates_of_schedule = round(state.epoch * state.max_steps / state.global_step * updates)
    again.max_steps = max(1, round(_best_step(first) / state.global_step * state.epoch * updates))
    return trainer


def _best_step(first: SerMtlTrainer) -> int:
    """The update after which the first training was best on dev, or as good as that."""
    name = f"eval_{(first.args.metric_for_best_model or '').removeprefix('eval_')}"
    scores = {entry["step"]: entry[name] for entry in first.history or [] if name in entry}
    if not first.args.greater_is_better:
        return first.state.best_global_step
    return last_of_the_best(scores, _measured(first, name), ccc=name.endswith("ccc"))


def _measured(first: SerMtlTrainer, name: str) -> int:
    """The number of development utterances behind a metric; of a mean over tasks, the smallest number of a task."""
    tasks = [task for task in first.stage.tasks if name.startswith(f"eval_{task}_")] or first.values
    columns = (first.parts["dev"][TASKS[task].column] for task in tasks)
    annotated = (sum(value is not None for value in column) for column in columns)
    return min(annotated, default=len(first.parts["dev"]))


def last_of_the_best(scores: dict[int, float], utterances: int, ccc: bool = False) -> int:
    """The last step whose score is within one standard error of the best: chance must not cut a training short.

    The standard error is that of a proportion; for a CCC, that of Lin (1989) for values without bias, which is the
    standard error of a correlation.

    Args:
        scores: by step; higher is better.
        utterances: behind each score.
        ccc: whether scores are CCCs, not fractions.
    """
    best = max(scores.values())
    error = (1 - best**2) / max(1, utterances - 2) ** 0.5 if ccc else (best * (1 - best) / utterances) ** 0.5
    return max(step for step, score in scores.items() if score >= best - error)


def _search(build: Build, stage: Stage, args: SerMtlArguments, parts: DatasetDict) -> SerMtlTrainer:
    """The Trainer of the first training, trained."""
    stage, args = copy(stage), copy(args)
    args.output_dir = str(search_folder(Path(args.output_dir)))
    args.resume_from_checkpoint = None  # it belongs to the second training
    if isinstance(stage, Stage2) and stage.stage1 and (before := search_folder(Path(stage.stage1))).is_dir():
        _check_stage1(stage.stage1, stage, parts)
        stage.stage1 = str(before)
    trainer = build(stage, args, parts, None)
    trainer.shows_line = False
    trainer.train()
    return trainer


def _check_stage1(named: str, stage: Stage2, parts: DatasetDict) -> None:
    """Check the run that --stage1 names, so that messages name it, and not its first training, unknown to users."""
    check_fits(stage, read_stage1(named))
    check_never_heard(Earlier("--stage1", named), with_dev_in_train(parts))
