"""The flags of experiments on the method."""

from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, ClassVar, Literal

from ser_mtl.errors import UserError
from ser_mtl.training.arguments import SerMtlArguments
from ser_mtl.training.checks import flag, local_or_hub
from ser_mtl.training.flags import Needs, refuse_without
from ser_mtl.training.stage import Stage, Stage1

_MERGED: Needs = (("merge",), lambda given: given.merge_asr is not None, "--merge_asr and --merge_emotion")

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

ALONE = ("co_attention", "layer_attention")
"""Heads that change what all heads see: segments in the place of utterances, all layers in that of the last one."""


@dataclass
class ResearchArguments:
    """Experiments on how the tasks conflict."""

    _argument_group_name: ClassVar[str] = "Experiments on the method"

    gradient_surgery: Literal["none", "pcgrad", "upgrad"] = flag(
        "none", "Remove conflicts between the losses' gradients."
    )
    gradient_cosines: bool = flag(False, "Measure the cosines between the losses' gradients; 5 %% slower.")
    merge_asr: str | None = flag(None, "A stage 1 of --tasks asr, to merge by layer with:")
    merge_emotion: str | None = flag(None, "A stage 1 of --tasks emotion, of the same --encoder.")
    merge: Literal["learned", "half"] = flag("learned", "Shares of both that are learned, or one half each.")
    emotion_head: Literal["none", "linear", "rectified", "frames", "co_attention", "layer_attention", "asr_fusion"] = (
        flag("none", "Emotion head of an earlier system, in stage 1.")
    )

    def settle(self, stage: Stage, args: SerMtlArguments) -> None:
        """Turn off experiments without effect on this stage: one loss has no conflicts, a frozen encoder no gradients.

        Raises:
            UserError: surgery or merging in several processes or with fp16, or flags that do not go together.
        """
        self._settle_merge(stage, args)
        if self.emotion_head != "none":
            self._settle_head(stage, args)
        if len(stage.tasks) == 1 or stage.trainable == "heads":
            self.gradient_surgery, self.gradient_cosines = "none", False
        if self.gradient_surgery != "none":
            _check_one_process(f"--gradient_surgery {self.gradient_surgery}", args)
            if find_spec("torchjd") is None:
                raise UserError(
                    f'--gradient_surgery {self.gradient_surgery}: needs the extra "research"; pip install torchjd'
                )

    def _settle_merge(self, stage: Stage, args: SerMtlArguments) -> None:
        refuse_without(self, (_MERGED,))
        if (self.merge_asr is None) != (self.merge_emotion is None):
            raise UserError("--merge_asr, --merge_emotion: are two models to be merged; name both")
        if self.merge_asr is None or self.merge_emotion is None:
            return
        if not isinstance(stage, Stage1) or list(stage.tasks) != ["emotion"] or stage.trainable != "all":
            raise UserError("--merge_asr, --merge_emotion: work in stage 1 with --tasks emotion and --trainable all")
        _check_one_process("--merge_asr, --merge_emotion", args)
        self.merge_asr, self.merge_emotion = local_or_hub(self.merge_asr), local_or_hub(self.merge_emotion)
        if self.merge == "half":  # train an epoch that changes nothing, so that the run leaves all files of a run
            args.num_train_epochs, args.max_steps, args.min_updates, args.learning_rate = 1.0, -1, 0, 0.0

    def _settle_head(self, stage: Stage, args: SerMtlArguments) -> None:
        trainable = HEADS[self.emotion_head][2]
        for idle, needed in (
            (stage.number != 1 or "emotion" not in stage.tasks, "stage 1, with emotion among --tasks"),
            (stage.trainable != trainable, f"--trainable {trainable}"),
            (self.emotion_head == "asr_fusion" and "asr" not in stage.tasks, "asr among --tasks"),
            (self.emotion_head in ALONE and len(stage.tasks) > 1, "--tasks emotion"),
            (self.gradient_surgery != "none", "--gradient_surgery none"),
            (self.merge_asr is not None, "a run without --merge_asr"),
            (getattr(stage, "probe_start", False), "a start without --probe_start"),
            (stage.fusion != "none" or stage.scl != "none", "--fusion none and --scl none"),
            (args.publish, "a run that is not published: drop --push_to_hub"),
        ):
            if idle:
                raise UserError(f"--emotion_head {self.emotion_head}: needs {needed}")
        if self.emotion_head == "co_attention":
            args.front_end_cache = "never"  # the head needs the samples

    def head_class(self) -> "type[EmotionHead]":
        """The class of the head."""
        module, name, _ = HEADS[self.emotion_head]
        return getattr(import_module(f"ser_mtl.research.{module}"), name)


def _check_one_process(flags: str, args: SerMtlArguments) -> None:
    if args.world_size > 1 or args.fp16:
        raise UserError(f"{flags}: needs a single process, and no --fp16")
