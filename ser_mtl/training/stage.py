"""The method: what each stage trains, and how."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import ClassVar, Literal

from modeling_ser_mtl import CTC_SCALES, SCL_FORMS, emotion_weight
from ser_mtl.errors import UserError
from ser_mtl.tasks import TASKS, VALUE_TASKS
from ser_mtl.training.checks import check_values, flag, local_or_hub
from ser_mtl.training.flags import ADAPTERS, AUXILIARY, CTC, SCL, WEIGHTS, refuse_without

_FUSION = "concat: the emotion classifier sees x_e, x_g and x_s."
_SCL = "Self-contrastive loss: cos (eq. 7) or norm (eq. 6)."
_WITH_TASKS = "with gender or style"


class DefaultTasks(list):
    """Default tasks, which the user did not name: those that the corpus does not annotate are left out.

    Args:
        tasks: their names.
        followers: settings at their defaults, which depend on the tasks.
    """

    def __init__(self, tasks: Iterable[str], followers: Collection[str] = ()):
        super().__init__(tasks)
        self.followers = frozenset(followers)


@dataclass
class Stage:
    """The arguments of the method that both stages share.

    None for a setting of the encoder means "as in the encoder's own config". Elsewhere None is a default that depends
    on other settings; the annotation is the type after `__post_init__`.
    """

    number: ClassVar[int] = 0
    _argument_group_name: ClassVar[str] = "The method"

    default_tasks: ClassVar[tuple[str, ...]] = ()

    tasks: list[str] = flag(None, f"Tasks to train: any of {' '.join(TASKS)}.")
    trainable: str = flag("all", "All parameters, or adapters on a frozen encoder.", choices=("all", "adapters"))
    aux_weight: float = flag(0.1, "Weight of each auxiliary task: the paper's alpha, beta.")
    ctc_scale: str = flag("characters", "What CTC is averaged over; batch: it is a sum.", choices=CTC_SCALES)
    fusion: str = flag("none", _FUSION, choices=("none", "concat"))
    scl: str = flag("none", _SCL, choices=("none", *SCL_FORMS))
    scl_weight: float = flag(1.0, "Weight of the self-contrastive loss.")
    class_weights: Literal["none", "balanced"] = flag(
        "none",
        "balanced: each class counts the same in its loss.",
    )
    soft_labels: bool = flag(False, "Train emotion on the raters' votes, if known.")
    layer_weights: bool | None = flag(False, "The heads see a learned average of all layers.")
    layer_statistics: bool | None = flag(False, "The heads see mean and deviation over time of all layers.")
    embedding_dim: int = flag(256, "Width of the task embeddings x.")
    lora_rank: int = flag(64, "Rank of LoRA in the attention's four projections.")
    lora_alpha: int = flag(64, "Scale of LoRA: its output times alpha / rank.")
    bottleneck_dim: int = flag(64, "Width of the bottleneck adapters.")
    train_front_end: bool = flag(False, "Train the convolutional front end too.")
    dropout: float | None = flag(None, "Dropout in the Transformer. [the encoder's own]")
    head_dropout: float = flag(0.0, "Dropout of the embeddings before the classifiers.")
    mask_time_prob: float | None = flag(None, "SpecAugment: share of frames masked. [the encoder's own]")
    mask_feature_prob: float | None = flag(None, "SpecAugment: share of channels masked. [the encoder's own]")

    def __post_init__(self):
        check_values(self)
        if self.tasks is None:
            followers = {name for name in ("fusion", "scl") if getattr(self, name) is None}
            self.tasks = DefaultTasks(self.default_tasks, followers)
        if isinstance(self.tasks, str):
            raise UserError(f"--tasks {self.tasks!r}: must be a list of names")
        if unknown := [task for task in self.tasks if task not in list(TASKS)]:  # a list has no hash
            raise UserError(f"--tasks {unknown[0]}: must be among {', '.join(TASKS)}")
        if not isinstance(self.tasks, DefaultTasks):
            self.tasks = [task for task in TASKS if task in self.tasks]
        if not self.tasks:
            raise UserError("--tasks: names no task; emotion must be among them")
        self._check_weights()
        if self.train_front_end and self.trainable != "all":
            raise UserError(
                f"--train_front_end: --trainable {self.trainable} freezes the front end; drop one of the two"
            )

    def leave_out(self, tasks: Collection[str]) -> None:
        """Train without these tasks, if they are defaults; tasks that the user named stay.

        Raises:
            UserError: fusion or SCL was asked for, and too few tasks are left for it.
        """
        if isinstance(self.tasks, DefaultTasks):
            followers = self.tasks.followers
            self.tasks = DefaultTasks((task for task in self.tasks if task not in tasks), followers)
            for name in followers:
                setattr(self, name, None)
            self._check_weights()

    def _check_weights(self) -> None:
        if not 0 < emotion_weight(self.tasks, self.aux_weight) <= 1:
            others = len(self.tasks) - 1
            raise UserError(f"--aux_weight {self.aux_weight}: leaves emotion no weight beside {others} other tasks")
        embeddings = [task for task in self.tasks if TASKS[task].kind == "classes"]
        if "emotion" not in self.tasks or len(embeddings) < 2:  # nothing to fuse or to pull together
            for name in ("fusion", "scl"):
                if getattr(self, name) not in (None, "none"):
                    raise UserError(
                        f"--{name} {getattr(self, name)}: needs emotion and another task with classes, not --tasks "
                        f"{' '.join(self.tasks)}; add gender or style, or drop --{name}"
                    )
            self.fusion = self.scl = "none"
        self.fusion, self.scl = self.fusion or "concat", self.scl or "cos"
        refuse_without(self, (SCL, AUXILIARY, CTC, WEIGHTS))


@dataclass
class Stage1(Stage):
    """Stage 1: all parameters of a pretrained encoder, for emotion and speech recognition (eq. 4)."""

    number: ClassVar[int] = 1

    encoder: str | None = flag(
        None,
        "Hub id or folder of the encoder. [facebook/wav2vec2-xls-r-300m; demo: a small one]",
    )
    default_tasks: ClassVar[tuple[str, ...]] = ("emotion", "asr")

    tasks: list[str] = flag(
        None,
        f"Any of {' '.join(TASKS)}. [emotion asr, as far as the corpus has them]",
    )
    probe_start: bool = flag(False, "Start the emotion head as a logistic regression.")
    trainable: str = flag(
        "all",
        "All parameters, or adapters or heads on a frozen encoder.",
        choices=("all", "adapters", "heads"),
    )

    def __post_init__(self):
        super().__post_init__()
        self.encoder = self.encoder and local_or_hub(self.encoder)
        refuse_without(self, (ADAPTERS,))
        if self.layer_statistics and (self.layer_weights or self.trainable == "heads"):
            other = "--layer_weights" if self.layer_weights else "--trainable heads"
            raise UserError(f"--layer_statistics: {other} is another view of the layers; drop one of the two")
        if self.probe_start and (self.trainable == "heads" or "emotion" not in self.tasks):
            raise UserError("--probe_start: needs emotion among --tasks, and --trainable all or adapters")
        if self.trainable == "heads":  # a frozen encoder gives the same output for an utterance every time
            for name in ("dropout", "mask_time_prob", "mask_feature_prob"):
                setattr(self, name, getattr(self, name) or 0.0)


@dataclass
class Stage2(Stage):
    """Stage 2: adapters on the frozen model of stage 1, for emotion, gender and speaking style (eqs. 5 to 7)."""

    number: ClassVar[int] = 2

    stage1: str | None = flag(None, "Hub id or folder of stage 1. [its run of this corpus and fold]")
    default_tasks: ClassVar[tuple[str, ...]] = ("emotion", "gender", "style")

    tasks: list[str] = flag(
        None,
        f"Any of {' '.join(TASKS)}, with emotion or a value. [emotion gender style, as far as the corpus has them]",
    )
    trainable: str = flag("adapters", "Adapters on the frozen model, or all parameters.", choices=("all", "adapters"))
    fusion: str = flag(None, f"{_FUSION} [concat {_WITH_TASKS}]", choices=("none", "concat"))
    scl: str = flag(None, f"{_SCL} [cos {_WITH_TASKS}]", choices=("none", *SCL_FORMS))
    layer_weights: bool | None = flag(None, "The heads see a learned average of all layers. [as stage 1]")
    layer_statistics: bool | None = flag(None, "Mean and deviation over time of all layers. [as stage 1]")

    def __post_init__(self):
        super().__post_init__()
        self.stage1 = self.stage1 and local_or_hub(self.stage1)
        if not {"emotion", *VALUE_TASKS} & {*self.tasks}:
            raise UserError(f"--tasks: emotion must be among them, or a value ({', '.join(VALUE_TASKS)})")
