"""The flags of experiments on the method."""

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, ClassVar, Literal

from ser_mtl.errors import UserError
from ser_mtl.training.arguments import SerMtlArguments
from ser_mtl.training.checks import flag
from ser_mtl.training.stage import Stage

if TYPE_CHECKING:
    from ser_mtl.research.heads import EmotionHead

HEADS = {
    "linear": ("heads", "MeanHead", "all"),
    "rectified": ("heads", "RectifiedMeanHead", "all"),
    "frames": ("heads", "FramesHead", "all"),
    "co_attention": ("co_attention", "CoAttention", "all"),
    "layer_attention": ("layer_attention", "LayerAttention", "heads"),
    "asr_fusion": ("asr_fusion", "AsrFusion", "all"),
}
"""Emotion heads of earlier systems: their module, their class, and the `--trainable` that they work with."""


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
    emotion_head: Literal["none", "linear", "rectified", "frames", "co_attention", "layer_attention", "asr_fusion"] = (
        flag(
            "none", "In the place of the emotion head, that of an earlier system (docs/earlier_systems.md), in stage 1."
        )
    )

    def settle(self, stage: Stage, args: SerMtlArguments) -> None:
        """Turn off what has no effect on this stage: a single loss has no conflicts, a frozen encoder no gradients.

        Raises:
            UserError: PCGrad in several processes or with fp16; or a head with settings that it does not work with.
        """
        if self.emotion_head != "none":
            self._settle_head(stage, args)
        if len(stage.tasks) == 1 or stage.trainable == "heads":
            self.gradient_surgery, self.gradient_cosines = "none", False
        if self.gradient_surgery != "none" and (args.world_size > 1 or args.fp16):
            raise UserError("--gradient_surgery pcgrad works in one process and without --fp16")

    def _settle_head(self, stage: Stage, args: SerMtlArguments) -> None:
        trainable = HEADS[self.emotion_head][2]
        for idle, needed in (
            (stage.number != 1 or "emotion" not in stage.tasks, "stage 1, with emotion among --tasks"),
            (stage.trainable != trainable, f"--trainable {trainable}"),
            (self.emotion_head == "asr_fusion" and "asr" not in stage.tasks, "asr among --tasks"),
            (self.gradient_surgery != "none", "--gradient_surgery none"),
            (getattr(stage, "probe_start", False), "a start without --probe_start"),
            (stage.fusion != "none" or stage.scl != "none", "--fusion none and --scl none"),
            (args.publish, "a run that is not published: drop --push_to_hub"),
        ):
            if idle:
                raise UserError(f"--emotion_head {self.emotion_head}: needs {needed}")
        if self.emotion_head == "co_attention":
            args.front_end_cache = "never"  # it hears the samples

    def head_class(self) -> "type[EmotionHead]":
        """The class of the head."""
        module, name, _ = HEADS[self.emotion_head]
        return getattr(import_module(f"ser_mtl.research.{module}"), name)
