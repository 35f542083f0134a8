"""Checks of a Trainer's arguments, and the model that a stage starts from, for the tasks that the corpus has."""

from collections.abc import Iterable

from datasets import DatasetDict

from ser_mtl.corpora.targets import (
    NEEDS_EMOTION,
    check_annotated,
    label_sets,
    lack_of_emotion,
    unusable_tasks,
    value_scales,
)
from ser_mtl.corpora.utterances import check_utterances, joined
from ser_mtl.errors import UserError, notice
from ser_mtl.tasks import TASKS
from ser_mtl.training.arguments import SerMtlArguments, check_together
from ser_mtl.training.heard import check_never_heard
from ser_mtl.training.method import Start
from ser_mtl.training.stage import DefaultTasks, Stage, Stage1, Stage2
from ser_mtl.training.stage1_start import stage1_start
from ser_mtl.training.stage2_start import stage2_start


def leave_out_unusable(stage: Stage, parts: DatasetDict, tasks: Iterable[str]) -> list[str]:
    """Leave out the tasks that are defaults and that the corpus has no labels for, with a notice for each.

    Raises:
        UserError: the corpus has no emotions; or fusion or SCL was asked for, and too few tasks are left for it.
    """
    if not isinstance(stage.tasks, DefaultTasks):
        return []
    if lack := lack_of_emotion(list(parts.values())):
        why, values = lack
        remedy = f"to train its values: --tasks {' '.join(values)}" if values else NEEDS_EMOTION
        raise UserError(f"{why}; {remedy}")
    reasons = unusable_tasks(parts, tasks)
    stage.leave_out(reasons)
    for task, reason in reasons.items():
        notice(f"--tasks: {task} is left out: {reason}")
    return list(reasons)


def start_of(stage: Stage, parts: DatasetDict) -> Start:
    """The model that a stage starts from, for the labels and transcripts of a split corpus.

    Raises:
        UserError: a model that cannot be loaded or does not fit the corpus or the flags, or a corpus without the
            annotations that a task needs.
    """
    columns = {TASKS[task].column for task in stage.tasks}
    labels = label_sets(joined(parts.select_columns(["id", *sorted(columns)])), stage.tasks)
    if isinstance(stage, Stage2):
        start = stage2_start(stage, labels, value_scales(parts["train"], stage.tasks))
    else:
        assert isinstance(stage, Stage1)
        start = stage1_start(stage, labels, parts)
    if start.earlier is not None:
        check_never_heard(start.earlier, parts)
    return start


def check_given(stage: Stage, args: SerMtlArguments, parts: DatasetDict) -> None:
    """Check a Trainer's arguments against the corpus, and leave out default tasks that it has no labels for.

    Raises:
        UserError: names the argument, or what the corpus lacks.
    """
    check_arguments(stage, args, parts)
    check_together(stage, args, has_dev="dev" in parts, has_test="test" in parts)
    leave_out_unusable(stage, parts, stage.tasks)
    check_annotated(parts, stage.tasks)


def check_arguments(stage: Stage, args: SerMtlArguments, parts: DatasetDict) -> None:
    """Check the types of a Trainer's arguments.

    Raises:
        UserError: names the argument.
    """
    for name, given, wanted in (("stage", stage, (Stage1, Stage2)), ("args", args, (SerMtlArguments,))):
        if not isinstance(given, wanted):
            shown = given.__name__ if isinstance(given, type) else type(given).__name__
            names = " or ".join(f"ser_mtl.{one.__name__}(...)" for one in wanted)
            raise UserError(f"{name}: must be {names}, not {shown}")
    if not isinstance(parts, dict) or "train" not in parts:
        raise UserError("parts: must be what ser_mtl.split returns, with train, test and dev")
    for name, part in parts.items():
        check_utterances(f"parts[{name!r}]", part)
