"""The arguments of a run: one dataclass for each subject, checked when it is made; all end up in `args.json`."""

import json
import math
import os
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, fields
from enum import Enum
from pathlib import Path
from types import UnionType
from typing import Any, ClassVar, Literal, Union, get_args, get_origin, get_type_hints

import torch
from transformers import TrainingArguments
from transformers.trainer_pt_utils import AcceleratorConfig
from transformers.trainer_utils import IntervalStrategy, SaveStrategy, SchedulerType
from transformers.training_args import OptimizerNames

from modeling_ser_mtl import SCL_FORMS
from ser_mtl.corpora.folds import FOLDS
from ser_mtl.corpora.loading import CORPUS_HELP, check_corpus_name
from ser_mtl.corpora.mapping import parse_map
from ser_mtl.errors import UserError
from ser_mtl.metrics import MEAN_CCC, METRIC, METRICS
from ser_mtl.tasks import TASKS, VALUE_TASKS
from ser_mtl.training.flags import (
    ADAPTERS,
    AUXILIARY,
    CORPUS,
    SCL,
    default_of,
    flags_to_blame,
    refuse_idle_flags,
    refuse_without,
)

_FUSION = "Input of the emotion classifier: none, which is x_e; or concat, which is x_e, x_g and x_s."
_SCL = "Self-contrastive loss: cos (eq. 7), norm (eq. 6) or none."
_WITH_TASKS = "if it has gender or style among its tasks"
_ENUMERATIONS: dict[str, type[Enum]] = {
    "eval_strategy": IntervalStrategy,
    "logging_strategy": IntervalStrategy,
    "save_strategy": SaveStrategy,
    "lr_scheduler_type": SchedulerType,
    "optim": OptimizerNames,
}
_NOT_ACCEPTED = (ValueError, OSError, ImportError, TypeError, RuntimeError, LookupError, ArithmeticError)
BATCH_SIZE = 16
"""Utterances per update, summed over processes and accumulation steps (the paper's)."""


def flag(default: Any, text: str, **more: Any) -> Any:
    """A dataclass field whose help is `text`; `more` are further arguments of argparse, such as `choices`."""
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata={"help": text, **more})
    return field(default=default, metadata={"help": text, **more})


_ABOVE_ZERO = {"num_train_epochs": 1e6, "adam_epsilon": 1.0, "logging_steps": 1e9, "eval_steps": 1e9, "save_steps": 1e9}
"""Numbers above 0, and what they must not exceed."""

_RANGES: dict[str, tuple[float, float]] = {
    **dict.fromkeys(("learning_rate", "max_grad_norm"), (0, 1e30)),
    **dict.fromkeys(("weight_decay", "save_minutes", "scl_weight"), (0, 1e6)),
    **dict.fromkeys(("warmup_steps", "eval_delay"), (0, 1e9)),
    **dict.fromkeys(("seed", "data_seed"), (0, 2**32 - 1)),
    **dict.fromkeys(("embedding_dim", "lora_rank", "lora_alpha", "bottleneck_dim"), (1, 65_536)),
    **dict.fromkeys(("gradient_accumulation_steps", "per_device_eval_batch_size", "eval_accumulation_steps"), (1, 1e6)),
    **dict.fromkeys(("save_total_limit", "torch_empty_cache_steps", "ddp_bucket_cap_mb"), (1, 1e6)),
    "aux_weight": (0, 1),
    "per_device_train_batch_size": (0, 1e6),
    "dataloader_num_workers": (0, 256),
    "dataloader_prefetch_factor": (1, 1024),
    "ddp_timeout": (1, 1e7),
    "max_seconds": (0.1, 3600),
}
"""Smallest and largest value of numbers that would otherwise fail late, or ask for all of the machine."""

_PROBABILITIES = (
    "dropout", "head_dropout", "mask_time_prob", "mask_feature_prob",
    "adam_beta1", "adam_beta2", "head_start", "label_smoothing_factor",
)  # fmt: skip
"""Shares, from 0 to less than 1."""


def check_values(arguments: Any) -> None:
    """Check every field by itself: types, choices, ranges of numbers, and strings that say nothing.

    Raises:
        UserError: names the field and the values that it takes.
    """
    annotations = get_type_hints(type(arguments))  # HfArgumentParser changes those of the fields
    for one in fields(arguments):
        value, annotation = getattr(arguments, one.name), annotations[one.name]
        if value == default_of(one) or (value is None and get_origin(annotation) is not Literal):
            continue
        if not isinstance(value, _classes_of(annotation)):
            raise UserError(f"--{one.name} {value!r}: must be {_in_words(annotation)}, not {type(value).__name__}")
        flag_and_value = f"--{one.name} {value!r}" if isinstance(value, str) else f"--{one.name} {value}"
        choices = one.metadata.get("choices") or (get_args(annotation) if get_origin(annotation) is Literal else ())
        if choices and value not in choices:
            raise UserError(f"{flag_and_value}: must be one of {', '.join(choices)}")
        if value == "" or (isinstance(value, list) and "" in value):
            raise UserError(f"--{one.name} '': is empty; give a value or drop it")
        if isinstance(value, str) and "\0" in value:
            raise UserError(f"--{one.name}: holds a NUL character")
        if wanted := _wanted_instead(one.name, value):
            raise UserError(f"{flag_and_value}: must be {wanted}")


def _classes_of(annotation: Any) -> tuple[type, ...]:
    """The classes of the values that a field with this annotation takes."""
    if get_origin(annotation) in (Union, UnionType):
        return tuple(one for option in get_args(annotation) for one in _classes_of(option))
    if annotation is Any or get_origin(annotation) is Literal:
        return (object,)
    known = get_origin(annotation) or annotation
    if not isinstance(known, type):
        return (object,)
    return {float: (float, int), str: (str, os.PathLike), list: (list, tuple)}.get(known, (known,))


def _in_words(annotation: Any) -> str:
    words = {"str": "text", "int": "a whole number", "float": "a number", "bool": "True or False", "list": "a list"}
    names = [one.__name__ for one in _classes_of(annotation) if one not in (os.PathLike, tuple)]
    names = [name for name in names if not (name == "int" and "float" in names)]
    return " or ".join("None" if name == "NoneType" else words.get(name, name) for name in names)


def _wanted_instead(name: str, value: Any) -> str | None:
    """The numbers that a field takes, if this is not one of them."""
    if name not in {*_ABOVE_ZERO, *_RANGES, *_PROBABILITIES}:
        return "a finite number" if isinstance(value, float) and not math.isfinite(value) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "a number"
    if name in _PROBABILITIES:
        return None if 0 <= value < 1 else "a share, from 0 to less than 1"
    if name in _ABOVE_ZERO:
        return None if 0 < value <= _ABOVE_ZERO[name] else f"a number above 0, at most {_ABOVE_ZERO[name]:g}"
    least, most = _RANGES[name]
    if least <= value <= most:
        return None
    return f"at least {least}" if value < least else f"a number from {least} to {most:.10g}"


def _refuse_constant(constant: str) -> None:
    """NaN and Infinity, which Python reads and JSON does not know."""
    raise ValueError(f"{constant} is no number")


def local_or_hub(name: str) -> str:
    """A folder as an absolute path, so that it is found from anywhere; a Hub id as it is."""
    return str(Path(name).resolve() if Path(name).is_dir() else name)


@dataclass
class CorpusArguments:
    """The corpus, and what is held out of it."""

    _argument_group_name: ClassVar[str] = "The corpus"

    fold: int | None = flag(
        None,
        "1..5: the session (or value of the fold column) held out for the test. Required, unless the corpus has an "
        "official split.",
    )
    corpus: str = flag("iemocap", CORPUS_HELP)
    data_dir: list[str] | None = flag(
        None,
        "Where the corpus is: its folder, or user/dataset for hub; of folder, several are joined. "
        "[iemocap: $IEMOCAP_DIR, else IEMOCAP_full_release]",
    )
    dev: Literal["dialog", "session", "none"] = flag(
        "dialog",
        "Development set. dialog: 10 %% of the training dialogs (of IEMOCAP's scenarios; of speakers, if there are no "
        "dialogs); "
        "session: the fold after the test fold, cyclic; none.",
    )
    map: list[str] | None = flag(
        None,
        "Other labels: anger=angry renames, disgust= leaves its utterances out, gender:m=male is of another column.",
    )
    distinct_speakers: bool = flag(False, "The same name in two joined folders means two people.")
    no_check_counts: bool = flag(False, "Accept a corpus whose counts differ from the published ones.")

    def __post_init__(self):
        check_values(self)
        check_corpus_name(self.corpus)
        parse_map(self.map or ())
        if self.fold is None and self.corpus in ("iemocap", "demo"):
            raise UserError("the following arguments are required: --fold; --help explains every flag")
        if self.fold not in (None, *FOLDS):
            raise UserError(f"--fold {self.fold}: must be one of 1 to 5")
        if self.corpus == "folder" and not self.data_dir:
            raise UserError("--corpus folder needs --data_dir: one or more folders with a metadata.csv")
        if self.corpus != "folder" and len(self.data_dir or []) > 1:
            raise UserError(f"--data_dir: --corpus {self.corpus} takes one folder; only --corpus folder joins several")
        refuse_without(self, CORPUS)


class DefaultTasks(list):
    """Tasks that nobody asked for: which of them are trained is left to the corpus.

    Args:
        tasks: their names.
        followers: settings that nobody asked for either, and that depend on the tasks.
    """

    def __init__(self, tasks: Iterable[str], followers: Collection[str] = ()):
        super().__init__(tasks)
        self.followers = frozenset(followers)


@dataclass
class Stage:
    """The arguments of the method that both stages share.

    A value of None for a setting of the encoder means "as in the encoder's own config".
    """

    number: ClassVar[int] = 0
    _argument_group_name: ClassVar[str] = "The method"

    default_tasks: ClassVar[tuple[str, ...]] = ()

    tasks: list[str] | None = flag(None, f"Tasks to train: any of {' '.join(TASKS)}.")
    trainable: str = flag("all", "all parameters, or adapters on a frozen encoder.", choices=("all", "adapters"))
    aux_weight: float = flag(0.1, "Weight of each auxiliary task: alpha (stage 1) and beta (stage 2) of the paper.")
    fusion: str | None = flag("none", _FUSION, choices=("none", "concat"))
    scl: str | None = flag("none", _SCL, choices=("none", *SCL_FORMS))
    scl_weight: float = flag(1.0, "Weight of the self-contrastive loss.")
    soft_labels: bool = flag(False, "Train emotion on the raters' distribution, if the corpus has raters.")
    embedding_dim: int = flag(256, "Width of the task embeddings x.")
    lora_rank: int = flag(64, "Rank of LoRA in the attention's four projections.")
    lora_alpha: int = flag(64, "Scale of LoRA: its output is multiplied by alpha / rank.")
    bottleneck_dim: int = flag(64, "Width of the bottleneck adapters.")
    train_front_end: bool = flag(False, "Train the encoder's convolutional front end too (with --trainable all).")
    dropout: float | None = flag(None, "Dropout inside the Transformer, a probability. [the encoder's own]")
    head_dropout: float = flag(0.0, "Dropout of the embeddings before the classifiers, a probability.")
    mask_time_prob: float | None = flag(None, "SpecAugment: share of frames masked in training. [the encoder's own]")
    mask_feature_prob: float | None = flag(
        None, "SpecAugment: share of channels masked in training. [the encoder's own]"
    )

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
        """Train without these of the default tasks; tasks that were asked for stay.

        Raises:
            UserError: fusion or SCL was asked for, and has too few tasks left.
        """
        if isinstance(self.tasks, DefaultTasks):
            followers = self.tasks.followers
            self.tasks = DefaultTasks((task for task in self.tasks if task not in tasks), followers)
            for name in followers:
                setattr(self, name, None)
            self._check_weights()

    def _check_weights(self) -> None:
        auxiliary = len(self.tasks) - 1
        if "emotion" in self.tasks and not 0 <= auxiliary * self.aux_weight < 1:
            raise UserError(f"--aux_weight {self.aux_weight}: leaves emotion no weight beside {auxiliary} other tasks")
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
        refuse_without(self, (SCL, AUXILIARY))


@dataclass
class Stage1(Stage):
    """Stage 1: all parameters of a pretrained encoder, for emotion and speech recognition (eq. 4)."""

    number: ClassVar[int] = 1

    encoder: str | None = flag(
        None,
        "Hub id or folder of the pretrained encoder. "
        "[facebook/wav2vec2-xls-r-300m; with --corpus demo a small one of its architecture, made on the spot]",
    )
    default_tasks: ClassVar[tuple[str, ...]] = ("emotion", "asr")

    tasks: list[str] | None = flag(
        None,
        f"Tasks to train: any of {' '.join(TASKS)}. Without emotion and values, to prepare for stage 2, only with "
        "--selection last. [emotion asr, as far as the corpus has them]",
    )
    trainable: str = flag(
        "all",
        "all parameters; adapters on a frozen encoder; or heads, on a learned average of the frozen encoder's layers.",
        choices=("all", "adapters", "heads"),
    )

    def __post_init__(self):
        super().__post_init__()
        self.encoder = self.encoder and local_or_hub(self.encoder)
        refuse_without(self, (ADAPTERS,))
        if self.trainable == "heads":  # a frozen encoder gives the same output for an utterance every time
            for name in ("dropout", "mask_time_prob", "mask_feature_prob"):
                setattr(self, name, getattr(self, name) or 0.0)


@dataclass
class Stage2(Stage):
    """Stage 2: adapters on the frozen model of stage 1, for emotion, gender and speaking style (eqs. 5 to 7)."""

    number: ClassVar[int] = 2

    stage1: str | None = flag(
        None, "Hub id or folder of the stage-1 model. [the stage-1 run of the same corpus and fold]"
    )
    default_tasks: ClassVar[tuple[str, ...]] = ("emotion", "gender", "style")

    tasks: list[str] | None = flag(
        None,
        f"Tasks to train: any of {' '.join(TASKS)}; emotion or a value among them. [emotion gender style, as far as "
        "the corpus has them]",
    )
    trainable: str = flag("adapters", "adapters on the frozen model, or all parameters.", choices=("all", "adapters"))
    fusion: str | None = flag(None, f"{_FUSION} [concat {_WITH_TASKS}]", choices=("none", "concat"))
    scl: str | None = flag(None, f"{_SCL} [cos {_WITH_TASKS}]", choices=("none", *SCL_FORMS))

    def __post_init__(self):
        super().__post_init__()
        self.stage1 = self.stage1 and local_or_hub(self.stage1)
        if not {"emotion", *VALUE_TASKS} & {*self.tasks}:
            raise UserError(f"--tasks: emotion must be among them, or a value ({', '.join(VALUE_TASKS)})")


@dataclass(repr=False)  # that of transformers masks the token
class SerMtlArguments(TrainingArguments):
    """The arguments of training: transformers' `TrainingArguments`, with the defaults of the paper and this project.

    These differ from transformers: 200 epochs, learning rate 1e-4 with linear warm-up over the first tenth and linear
    decay, 16 utterances per update, AdamW with weight decay 0.01, bf16 if the device has it, an evaluation after each
    epoch, and a checkpoint when dev improves or the last one is ten minutes old; the best and the last are kept.

    Raises:
        UserError: a value that makes no sense, or values that contradict each other.
    """

    _argument_group_name: ClassVar[str] = "Training"

    output_dir: str | None = flag(None, "Folder of the run. [runs/<corpus>/stage<k>/fold<n>]")
    num_train_epochs: float = flag(200.0, "Epochs.")
    learning_rate: float = flag(1e-4, "Peak learning rate.")
    warmup_steps: float = flag(0.1, "Linear warm-up: a share of all updates if below 1, else a number of updates.")
    head_start: float = flag(0.0, "Share of all updates in which only the heads train, before the encoder joins them.")
    adam_beta2: float = flag(0.98, "AdamW's decay of squared gradients; short, because CTC's first ones are huge.")
    weight_decay: float = flag(0.01, "AdamW's weight decay.")
    per_device_train_batch_size: int = flag(
        0, f"Utterances per batch on each device. [0: {BATCH_SIZE} over all devices and accumulation steps]"
    )
    per_device_eval_batch_size: int = flag(32, "Utterances per batch on each device in evaluation.")
    selection: Literal["dev", "last", "oracle"] = flag(
        "dev",
        "Which epoch is kept: the best UA on dev (without emotion, the best mean CCC of the values), the last, or the "
        "best on the test fold (optimistic).",
    )
    measure_oracle: bool = flag(
        False, "Log the metrics of the test fold after each epoch too; nothing is chosen by it."
    )
    metric_for_best_model: str | None = flag("emotion_ua", "The metric that --selection dev and oracle compare.")
    greater_is_better: bool | None = flag(
        None, "Whether more of it is better. [yes, except for losses and error rates]"
    )
    eval_strategy: str = flag("epoch", "When dev is evaluated: epoch, steps (with --eval_steps) or no.")
    save_strategy: str = flag(
        "epoch",
        "When a checkpoint may be written: epoch, steps (with --save_steps) or no; with --selection dev, the same as "
        "--eval_strategy.",
    )
    max_seconds: float = flag(60.0, "Seconds of the longest utterance; a longer one stops the run.")
    save_minutes: float = flag(10.0, "Minutes between checkpoints, apart from those written when dev improves.")
    save_total_limit: int | None = flag(1, "Checkpoints kept beside the best one.")
    logging_strategy: str = flag("epoch", "When losses are logged: epoch or steps (with --logging_steps).")
    front_end_cache: Literal["auto", "never"] = flag(
        "auto", "auto: run a frozen front end once per utterance and keep its output on disk; never: run it every time."
    )
    bf16: bool | None = flag(None, "Train in bfloat16. [if a CUDA device has it]")
    # Without it, torchrun's processes on a CPU would each believe that they are alone.
    use_cpu: bool = flag(not torch.accelerator.is_available(), "Train on the CPU. [if there is no accelerator]")
    dataloader_num_workers: int = flag(
        4 if torch.cuda.is_available() else 0, "Processes that prepare batches. [4 with CUDA, else 0]"
    )
    push_to_hub: bool = flag(False, "Publish the finished run as --hub_model_id, as `ser-mtl publish` does.")
    hub_model_id: str | None = flag(None, "Where on the Hub the run is published: namespace/name.")
    hub_private_repo: bool = flag(True, "Publish in a private repository; --no_hub_private_repo in a public one.")
    # Settings that this project's Trainer relies on.
    eval_accumulation_steps: int | None = flag(1, "Batches of predictions that stay on the device.")
    remove_unused_columns: bool | None = flag(False, "Leave off: the collator needs all columns.")
    ddp_find_unused_parameters: bool | None = flag(False, "Leave off: every trainable parameter has a gradient.")
    dataloader_pin_memory: bool = flag(torch.cuda.is_available(), "Pin batches in memory. [with CUDA]")
    logging_nan_inf_filter: bool = flag(False, "Leave off: a run stops where a loss is not finite.")
    label_names: list[str] | None = flag(["row"], "Leave as it is: rows come back beside the predictions.")

    def __post_init__(self):
        check_values(self)
        self._check_together()
        refuse_idle_flags(self)
        self._check_selection()
        self._settle_device()
        self._settle_precision()
        self._settle_batch_size()
        # The Trainer itself would push checkpoint by checkpoint, in many commits, with a pickle in each.
        self.publish, self.push_to_hub = self.push_to_hub, False
        try:
            super().__post_init__()
        except UserError:
            raise
        except _NOT_ACCEPTED as error:  # often names the flag, over several lines
            reason = " ".join(str(error).split())
            raise UserError(reason if "--" in reason else f"{flags_to_blame(self)}{reason}") from error
        # A launcher's own precision would otherwise win over a flag that says no.
        self.mixed_precision = "fp16" if self.fp16 else "bf16" if self.bf16 else "no"
        self._check_processes()
        # Otherwise the Trainer spreads each batch over all GPUs it sees; here each GPU has a process of its own.
        self._n_gpu = min(1, self.n_gpu)

    def _check_together(self) -> None:
        if self.output_dir is None:
            raise UserError("--output_dir: is missing; name the folder of the run")
        if self.max_steps != -1 and self.max_steps not in range(1, 10**9):
            raise UserError(f"--max_steps {self.max_steps}: must be at least 1, or -1 for --num_train_epochs")
        for name, kind in _ENUMERATIONS.items():
            if (value := getattr(self, name)) not in (choices := [one.value for one in kind]):
                raise UserError(f"--{name} {value}: must be one of {', '.join(choices)}")
        for name in self._VALID_DICT_FIELDS:
            if isinstance(text := getattr(self, name), str) and text.startswith("{"):
                try:
                    json.loads(text, parse_constant=_refuse_constant)
                except ValueError as error:
                    raise UserError(f"--{name} {text}: is not JSON ({error})") from error
        if (context := self.dataloader_multiprocessing_context) not in (None, "fork"):
            raise UserError(f"--dataloader_multiprocessing_context {context}: workers inherit the corpus; use fork")
        if self.head_start > 0 and self.lr_scheduler_type in ("reduce_lr_on_plateau", "greedy"):
            raise UserError(
                f"--head_start {self.head_start}: needs a schedule that is known beforehand, not --lr_scheduler_type "
                f"{self.lr_scheduler_type}"
            )
        if self.push_to_hub and not self.hub_model_id:
            raise UserError("--push_to_hub needs --hub_model_id: where on the Hub, namespace/name")

    def _check_selection(self) -> None:
        strategies = self.eval_strategy, self.save_strategy
        if self.load_best_model_at_end and self.selection == "last":  # type: ignore[has-type]
            raise UserError("--load_best_model_at_end: contradicts --selection last; drop one of the two")
        if self.save_strategy == "best":
            raise UserError("--save_strategy best: use epoch or steps, where a checkpoint is written when dev improves")
        if self.selection != "last" and strategies not in (("epoch", "epoch"), ("steps", "steps")):
            raise UserError(
                f"--selection {self.selection} needs --eval_strategy and --save_strategy to be both epoch or both "
                f"steps, not {strategies[0]} and {strategies[1]}"
            )
        self.load_best_model_at_end = self.selection != "last"
        metric = METRIC.get((self.metric_for_best_model or "").removeprefix("eval_"))
        if self.greater_is_better is None and metric is not None:  # transformers knows a loss by its name
            self.greater_is_better = metric.higher_is_better

    def _settle_device(self) -> None:
        if not self.use_cpu and not torch.accelerator.is_available():
            raise UserError("--use_cpu False: torch finds no GPU here; drop it")
        if self.dataloader_pin_memory and not torch.accelerator.is_available():
            raise UserError("--dataloader_pin_memory: needs a GPU, and there is none; drop it")
        if not self.accelerator_config and self.dataloader_pin_memory:  # type: ignore[has-type]
            self.accelerator_config = {"non_blocking": True}  # else each batch's copy waits for the step before it

    def _settle_precision(self) -> None:
        if self.fp16 and self.use_cpu:  # type: ignore[has-type]
            raise UserError("--fp16: needs a GPU, and this run is on the CPU; use --bf16 True, or neither")
        for name in ("ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED"):
            if os.environ.get(name, "false").lower() in ("true", "1"):
                raise UserError("accelerate launch: FSDP and DeepSpeed are not supported; choose neither in its config")
        launched = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")  # of `accelerate launch --mixed_precision`
        if self.bf16 is None and not self.fp16 and launched != "no":  # type: ignore[has-type]
            self.fp16 = launched == "fp16"
            self.bf16 = launched == "bf16"
            if launched not in ("fp16", "bf16") or (self.fp16 and self.use_cpu):
                raise UserError(f"accelerate launch --mixed_precision {launched}: is not possible here; use bf16 or no")
        if self.bf16 is None:
            # Older GPUs only emulate bfloat16, more slowly than they compute in float32.
            hardware = torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
            self.bf16 = hardware and not self.fp16 and not self.use_cpu

    def _settle_batch_size(self) -> None:
        if self.per_device_train_batch_size == 0:
            share = int(os.environ.get("WORLD_SIZE", 1)) * self.gradient_accumulation_steps
            if BATCH_SIZE % share:
                raise UserError(
                    f"{BATCH_SIZE} utterances cannot be shared by {share} (processes x --gradient_accumulation_steps); "
                    "set --per_device_train_batch_size"
                )
            self.per_device_train_batch_size = BATCH_SIZE // share

    def _check_processes(self) -> None:
        dealing = getattr(self, "accelerator_config")  # noqa: B009 (its type is not known to mypy)
        for name in {one.name for one in fields(AcceleratorConfig)} - {"non_blocking"}:
            if (value := getattr(dealing, name)) != getattr(AcceleratorConfig(), name):
                raise UserError(
                    f"--accelerator_config {name} {value}: it would not be known which utterances an update has; "
                    "only non_blocking may be set"
                )

    def __getstate__(self) -> dict:
        """What is pickled beside each checkpoint (`training_args.bin`): everything but the token."""
        return vars(self) | {"hub_token": None}

    @property
    def utterances_per_update(self) -> int:
        """Utterances in one update, over all processes and accumulation steps."""
        return self.train_batch_size * self.world_size * self.gradient_accumulation_steps


def check_together(stage: Stage, args: SerMtlArguments, has_dev: bool) -> None:
    """Check a stage and its training arguments against each other, and settle what follows from both.

    Raises:
        UserError: names the flag, and the one it contradicts.
    """
    values = {*VALUE_TASKS} & {*stage.tasks}
    if "emotion" not in stage.tasks:
        if args.selection != "last" and not values:
            raise UserError(
                "--tasks: emotion must be among them, since epochs are compared by its UA, or a value, compared by its "
                "CCC; or use --selection last"
            )
        if not values:
            args.metric_for_best_model = None
        elif args.metric_for_best_model == "emotion_ua":  # the default
            args.metric_for_best_model = MEAN_CCC
    if args.selection == "dev" and not has_dev:
        raise UserError("--selection dev needs a development set: --dev dialog or session, or --selection last")
    if args.selection == "last" and not has_dev:
        args.eval_strategy = IntervalStrategy.NO
    known = [
        "loss",
        *(metric.name for metric in METRICS if metric.group in stage.tasks),
        *([MEAN_CCC] if values else []),
    ]
    if args.selection != "last" and (args.metric_for_best_model or "").removeprefix("eval_") not in known:
        raise UserError(f"--metric_for_best_model {args.metric_for_best_model}: must be one of {', '.join(known)}")
