"""The flags of experiments on the method."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from ser_mtl.errors import UserError
from ser_mtl.training.arguments import SerMtlArguments
from ser_mtl.training.checks import flag
from ser_mtl.training.stage import Stage


@dataclass
class ResearchArguments:
    """Experiments on how the tasks' losses conflict."""

    _argument_group_name: ClassVar[str] = "Experiments on the method"

    gradient_surgery: Literal["none", "pcgrad"] = flag(
        "none", "pcgrad: remove conflicts between the losses' gradients."
    )
    gradient_cosines: bool = flag(
        False,
        "Measure the cosines between the losses' gradients; 5 %% slower.",
    )

    def settle(self, stage: Stage, args: SerMtlArguments) -> None:
        """Turn off what has no effect on this stage: a single loss has no conflicts, a frozen encoder no gradients.

        Raises:
            UserError: PCGrad in several processes or with fp16.
        """
        if len(stage.tasks) == 1 or stage.trainable == "heads":
            self.gradient_surgery, self.gradient_cosines = "none", False
        if self.gradient_surgery != "none" and (args.world_size > 1 or args.fp16):
            raise UserError("--gradient_surgery pcgrad works in one process and without --fp16")
