"""The arguments of a run: its corpus and its training; all end up in `args.json`."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from enum import Enum
from typing import ClassVar, Literal

import torch
from accelerate.state import AcceleratorState
from datasets import Dataset
from transformers import TrainingArguments
from transformers.trainer_pt_utils import AcceleratorConfig
from transformers.trainer_utils import IntervalStrategy, SaveStrategy, SchedulerType
from transformers.training_args import OptimizerNames

from ser_mtl.corpora.augmentation import check_augmentations
from ser_mtl.corpora.dealing import ALL, FOLDS
from ser_mtl.corpora.loading import CORPUS_HELP, check_corpus_name, load_corpus
from ser_mtl.corpora.mapping import parse_map
from ser_mtl.errors import UserError
from ser_mtl.metrics import MEAN_CCC, METRIC, METRICS
from ser_mtl.tasks import VALUE_TASKS
from ser_mtl.training.checks import check_values, flag
from ser_mtl.training.flags import CORPUS, flags_to_blame, refuse_idle_flags, refuse_without
from ser_mtl.training.recipes import RECIPES
from ser_mtl.training.stage import Stage

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


def _refuse_constant(constant: str) -> None:
    """Refuse NaN and Infinity, which Python reads and JSON does not know."""
    raise ValueError(f"{constant} is not a number")


@dataclass
class CorpusArguments:
    """The corpus, and what is held out of it."""

    _argument_group_name: ClassVar[str] = "The corpus"

    fold: int | str | None = flag(
        None, "Fold to test on, 1 to 5 (not with an official split); all: test on none, for a final model."
    )
    corpus: str = flag("iemocap", CORPUS_HELP)
    data_dir: list[str] | None = flag(
        None,
        "Folder of the corpus, or user/dataset (hub); several are joined (folder). [$IEMOCAP_DIR, else "
        "IEMOCAP_full_release]",
    )
    recipe: str | None = flag(
        None,
        "Other flags' defaults: paper, as here, or small, for small corpora. [paper for iemocap and demo, else small]",
        choices=tuple(RECIPES),
    )
    dev: Literal["dialog", "session", "none"] = flag(
        "dialog",
        "Development set: 10 %% of the training dialogs, else of the speakers; session: the fold after the test fold.",
    )
    refit: bool = flag(False, "Choose the epochs on dev, then train on train and dev.")
    map: list[str] | None = flag(None, "Rename labels: anger=angry, gender:m=male; drop: disgust=.")
    distinct_speakers: bool = flag(False, "The same name in two joined folders means two people.")
    no_check_counts: bool = flag(False, "Accept a corpus whose counts differ from the published ones.")

    def __post_init__(self):
        check_values(self)
        if isinstance(self.fold, str) and self.fold.isdecimal():  # from a command line
            self.fold = int(self.fold)
        check_corpus_name(self.corpus)
        parse_map(self.map or ())
        if self.fold is None and self.corpus in ("iemocap", "demo"):
            raise UserError("the following arguments are required: --fold; --help explains every flag")
        if self.fold not in (None, ALL, *FOLDS):
            raise UserError(f"--fold {self.fold!r}: must be one of 1 to 5, or all")
        if self.fold == ALL and self.dev == "session":
            raise UserError(
                "--dev session: is the fold after the test one, and --fold all has none; use --dev dialog or none"
            )
        if self.corpus == "folder" and not self.data_dir:
            raise UserError("--corpus folder needs --data_dir: one or more folders with a metadata.csv")
        if self.refit and self.dev == "none":
            raise UserError("--refit: needs a development set; drop it, or --dev none")
        if self.corpus != "folder" and len(self.data_dir or []) > 1:
            raise UserError(f"--data_dir: --corpus {self.corpus} takes one folder; only --corpus folder joins several")
        refuse_without(self, CORPUS)

    def load(self) -> Dataset:
        """Read the utterances of the corpus.

        Raises:
            UserError: the corpus is missing or has a fault.
        """
        check_counts = not self.no_check_counts
        return load_corpus(self.corpus, self.data_dir, check_counts, self.distinct_speakers, self.map or ())


@contextmanager
def _keep_accelerator_state() -> Iterator[None]:
    """Keep accelerate's state for existing Trainers: transformers resets it for new arguments."""
    before = dict(AcceleratorState._shared_state)
    yield
    if not AcceleratorState._shared_state:
        AcceleratorState._shared_state.update(before)


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

    output_dir: str = flag(None, "Folder of the run. [runs/<corpus>/stage<k>/fold<n>]")
    num_train_epochs: float = flag(200.0, "Epochs.")
    min_updates: int = flag(0, "Least number of updates with emotions, reached by more epochs. [0: none]")
    learning_rate: float = flag(1e-4, "Peak learning rate.")
    warmup_steps: float = flag(0.1, "Linear warm-up in updates; below 1, a share of all.")
    layer_decay: float = flag(1.0, "Learning rate of a layer, as a share of the one above.")
    head_start: float = flag(0.0, "Share of the updates before the encoder trains too.")
    adam_beta2: float = flag(0.98, "AdamW's decay of squared gradients; short, because CTC's first ones are huge.")
    weight_decay: float = flag(0.01, "AdamW's weight decay.")
    per_device_train_batch_size: int = flag(0, f"Utterances per batch and device. [0: {BATCH_SIZE} per update in all]")
    per_device_eval_batch_size: int = flag(32, "Utterances per batch on each device in evaluation.")
    selection: Literal["dev", "last", "oracle"] = flag(
        "dev",
        "Epoch that is kept: the best on dev (by UA, or CCC of values), the last, or (oracle) the best on test.",
    )
    early_stopping_patience: int | None = flag(None, "Stop after this many evaluations without a better one.")
    measure_oracle: bool = flag(False, "Log test metrics after each epoch; no choice uses them.")
    metric_for_best_model: str | None = flag("emotion_ua", "The metric that --selection dev and oracle compare.")
    greater_is_better: bool | None = flag(
        None, "Whether a larger value of it is better. [yes, except for losses and error rates]"
    )
    eval_strategy: str = flag("epoch", "When dev is evaluated: epoch, steps (with --eval_steps) or no.")
    save_strategy: str = flag(
        "epoch",
        "When a checkpoint may be written: epoch, steps (with --save_steps) or no; with --selection dev, the same as "
        "--eval_strategy.",
    )
    max_seconds: float = flag(60.0, "Longest utterance in seconds; longer is an error.")
    save_minutes: float = flag(10.0, "Minutes between checkpoints, apart from those written when dev improves.")
    save_total_limit: int | None = flag(1, "Checkpoints kept beside the best one.")
    logging_strategy: str = flag("epoch", "When losses are logged: epoch or steps (with --logging_steps).")
    front_end_cache: Literal["auto", "always", "never"] = flag(
        "auto",
        "Run a frozen front end once per utterance and keep its output on disk: auto (if it takes no more than half of "
        "the free space), always or never.",
    )
    augment: list[str] | None = flag(None, "Vary training utterances: noise, reverb, speed; or none.")
    bf16: bool | None = flag(None, "Train in bfloat16. [if a CUDA device has it]")
    # Without it, each of torchrun's processes on a CPU would take itself for the only one.
    use_cpu: bool = flag(not torch.accelerator.is_available(), "Train on the CPU. [if there is no accelerator]")
    dataloader_num_workers: int = flag(
        4 if torch.cuda.is_available() else 0, "Processes that prepare batches. [4 with CUDA, else 0]"
    )
    push_to_hub: bool = flag(False, "Publish the finished run, as `ser-mtl publish` does.")
    hub_model_id: str | None = flag(None, "Where on the Hub: namespace/name.")
    hub_private_repo: bool = flag(True, "Publish in a private repository; --no_hub_private_repo in a public one.")
    # Settings that this project's Trainer relies on.
    eval_accumulation_steps: int | None = flag(1, "Batches of predictions that stay on the device.")
    remove_unused_columns: bool | None = flag(False, "Leave off: the collator needs all columns.")
    ddp_find_unused_parameters: bool | None = flag(False, "Leave off: every trainable parameter has a gradient.")
    dataloader_pin_memory: bool = flag(torch.cuda.is_available(), "Pin batches in memory. [with CUDA]")
    logging_nan_inf_filter: bool = flag(False, "Leave off: a run stops where a loss is not finite.")
    label_names: list[str] | None = flag(["row"], "Leave as it is: each prediction comes back with its row.")

    def __post_init__(self):
        check_values(self)
        self._check_together()
        refuse_idle_flags(self)
        if self.augment is not None:
            self.augment = check_augmentations(self.augment) or None
            self.front_end_cache = "never" if self.augment else self.front_end_cache
        self._check_selection()
        self._settle_device()
        self._settle_precision()
        self._settle_batch_size()
        # The Trainer itself would push checkpoint by checkpoint, in many commits, with a pickle in each.
        self.publish, self.push_to_hub = self.push_to_hub, False
        try:
            with _keep_accelerator_state():
                super().__post_init__()
        except UserError:
            raise
        except _NOT_ACCEPTED as error:  # often names the flag, over several lines
            reason = " ".join(str(error).split())
            raise UserError(reason if "--" in reason else f"{flags_to_blame(self)}{reason}") from error
        # A launcher's own precision would otherwise override a flag that says no.
        self.mixed_precision = "fp16" if self.fp16 else "bf16" if self.bf16 else "no"
        self._check_processes()
        # Otherwise the Trainer would split each batch over all GPUs it sees; here each GPU has its own process.
        self._n_gpu = min(1, self.n_gpu)

    def _check_together(self) -> None:
        if self.output_dir is None:
            raise UserError("--output_dir: is missing; name the folder of the run")
        if self.max_steps != -1 and self.max_steps not in range(1, 10**9):
            raise UserError(f"--max_steps {self.max_steps}: must be at least 1, or -1 for --num_train_epochs")
        for name, kind in _ENUMERATIONS.items():
            if (value := getattr(self, name)) not in (choices := [member.value for member in kind]):
                raise UserError(f"--{name} {value}: must be one of {', '.join(choices)}")
        for name in self._VALID_DICT_FIELDS:
            if isinstance(text := getattr(self, name), str) and text.startswith("{"):
                try:
                    json.loads(text, parse_constant=_refuse_constant)
                except ValueError as error:
                    raise UserError(f"--{name} {text}: is not JSON ({error})") from error
        if (context := self.dataloader_multiprocessing_context) not in (None, "fork"):
            raise UserError(f"--dataloader_multiprocessing_context {context}: workers inherit the corpus; use fork")
        if self.min_updates and self.max_steps > 0:
            raise UserError(
                f"--min_updates {self.min_updates}: --max_steps {self.max_steps} sets their number; drop one of the two"
            )
        if self.head_start > 0 and self.lr_scheduler_type in ("reduce_lr_on_plateau", "greedy"):
            raise UserError(
                f"--head_start {self.head_start}: needs a schedule that is known beforehand, not --lr_scheduler_type "
                f"{self.lr_scheduler_type}"
            )
        if self.augment and self.front_end_cache == "always":
            raise UserError("--front_end_cache always: --augment changes the audio in every step; drop one of the two")
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
        if self.greater_is_better is None and metric is not None:  # transformers recognises a loss by its name
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
                    f"--accelerator_config {name} {value}: would change which utterances an update has; only "
                    "non_blocking may be set"
                )

    def __getstate__(self) -> dict:
        """What is pickled beside each checkpoint (`training_args.bin`): everything but the token."""
        return vars(self) | {"hub_token": None}

    @property
    def utterances_per_update(self) -> int:
        """Utterances in one update, over all processes and accumulation steps."""
        return self.train_batch_size * self.world_size * self.gradient_accumulation_steps


def check_together(stage: Stage, args: SerMtlArguments, has_dev: bool, has_test: bool = True) -> None:
    """Check a stage and its training arguments against each other, and set the arguments that follow from both.

    Args:
        stage: the method.
        args: of training.
        has_dev: whether there is a development set.
        has_test: whether there is a test set.

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
    if not has_test and (args.selection == "oracle" or args.measure_oracle):
        name = "--selection oracle" if args.selection == "oracle" else "--measure_oracle"
        raise UserError(f"{name}: needs a test set, and nothing is held out (--fold all); drop it")
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
