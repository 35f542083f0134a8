"""A run begins with its first update: until then it writes nothing, and an error is blamed on a flag."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from transformers import TrainerCallback, TrainerState
from transformers.trainer_utils import IntervalStrategy

from ser_mtl.errors import UserError
from ser_mtl.training.arguments import SerMtlArguments
from ser_mtl.training.flags import flags_to_blame


class Beginning(TrainerCallback):
    """Write the record of a run after its first update.

    If a flag makes any library fail before that, the folder stays free for the corrected command.

    Args:
        write: writes the record.
        args: of the run.
    """

    def __init__(self, write: Callable[[], None], args: SerMtlArguments):
        self.write, self.over = write, False
        self.flags = flags_to_blame(args)

    def on_train_begin(self, args, state, control, **kwargs):
        """Check the flags that depend on the number of updates."""
        check_that_dev_is_evaluated(args, state)
        if (warmup := args.get_warmup_steps(state.max_steps)) > state.max_steps:
            raise UserError(
                f"--warmup_steps {args.warmup_steps:g}: {warmup} updates are more than the run has, {state.max_steps}; "
                "use fewer, or a share such as 0.1"
            )

    def on_step_end(self, args, state, control, **kwargs):
        """Write the record, once."""
        if not self.over and state.is_world_process_zero:
            self.write()
        self.over = True

    on_train_end = on_step_end


def check_that_dev_is_evaluated(args: SerMtlArguments, state: TrainerState) -> None:
    """Check that there is an evaluation to choose an epoch by.

    Raises:
        UserError: names the flags that put the first one after the last update.
    """
    if args.selection == "last":
        return
    if args.eval_strategy == "steps":
        steps = int(state.eval_steps)
        last: float = state.max_steps // steps * steps
    else:
        steps, last = 0, state.num_train_epochs
    if last < max(steps, args.eval_delay, 1e-9):
        strategy = IntervalStrategy(args.eval_strategy).value
        raise UserError(
            f"--selection {args.selection}: no evaluation before the last update, {state.max_steps}, with "
            f"--eval_strategy {strategy}, --eval_steps {args.eval_steps}, --eval_delay {args.eval_delay:g}; evaluate "
            "more often, or use --selection last"
        )


@contextmanager
def blaming_flags(beginning: Beginning) -> Iterator[None]:
    """Turn an error before the first update into one line, if flags are set that only other libraries can judge.

    Raises:
        UserError: names these flags, and the reason.
    """
    try:
        yield
    except (UserError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        if beginning.over or not beginning.flags:
            raise
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{beginning.flags}training cannot start with it: {reason}") from error


@contextmanager
def no_empty_folder(folder: Path) -> Iterator[None]:
    """After the block, remove the folder if the block created it and left it empty; likewise its parents."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        yield
    finally:
        for path in missing:
            if path.is_dir() and not any(path.iterdir()):
                path.rmdir()
