"""What a run is told. One dataclass for each subject; checked as it is read; all of it ends up in `args.json`."""

import os
from dataclasses import dataclass, field
from typing import Literal

import torch
from transformers import TrainingArguments

from ser_mtl.corpora.folds import FOLDS
from ser_mtl.errors import UserError
from ser_mtl.tasks import TASKS

BATCH_SIZE = 16
"""Utterances an update, summed over processes and accumulation steps (the paper's)."""


def _flag(default, text: str, **kwargs):
    """A dataclass field whose help is `text`."""
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata={"help": text}, **kwargs)
    return field(default=default, metadata={"help": text}, **kwargs)


@dataclass
class CorpusArguments:
    """The corpus and what of it is held out."""

    fold: int = field(metadata={"help": "1..5: the session (or the value of the fold column) held out for the test."})
    corpus: Literal["iemocap", "folder", "demo"] = _flag(
        "iemocap", "iemocap; folder: folders with a metadata.csv; demo: synthesised on the spot."
    )
    data_dir: list[str] | None = _flag(
        None, "Where the corpus lies; several folders are joined. [iemocap: $IEMOCAP_DIR, else IEMOCAP_full_release]"
    )
    dev: Literal["dialog", "session", "none"] = _flag(
        "dialog",
        "Development set. dialog: 10 %% of the training dialogs (or speakers, where there are no dialogs); "
        "session: the fold after the test one, cyclic; none.",
    )
    no_check_counts: bool = _flag(False, "Accept an IEMOCAP whose counts differ from the published 5,531.")

    def __post_init__(self):
        if self.fold not in FOLDS:
            raise UserError(f"--fold {self.fold}: must be one of 1 to 5")
        if self.corpus == "folder" and not self.data_dir:
            raise UserError("--corpus folder needs --data_dir: one or more folders with a metadata.csv")
        if self.corpus != "folder" and len(self.data_dir or []) > 1:
            raise UserError(f"--data_dir: --corpus {self.corpus} takes one folder; only --corpus folder joins several")


@dataclass
class MethodArguments:
    """What both stages share of the method. `None` for a value of the encoder means "as its own config says"."""

    tasks: list[str] = _flag([], "Tasks that are trained, any of emotion asr gender style, with emotion in it.")
    trainable: Literal["all", "adapters"] = _flag("all", "all parameters, or adapters on a frozen encoder.")
    aux_weight: float = _flag(0.1, "Weight of each auxiliary task: alpha (stage 1) and beta (stage 2) of the paper.")
    fusion: Literal["none", "concat"] = _flag("none", "What the emotion classifier sees: x_e, or x_e, x_g and x_s.")
    scl: Literal["none", "cos", "norm"] = _flag("none", "Self-contrastive loss: cos (eq. 7), norm (eq. 6) or none.")
    scl_weight: float = _flag(1.0, "Weight of the self-contrastive loss.")
    soft_labels: bool = _flag(False, "Train emotion on the raters' distribution, where the corpus has raters.")
    embedding_dim: int = _flag(256, "Width of the task embeddings x.")
    lora_rank: int = _flag(64, "Rank of LoRA in the attention's four projections.")
    lora_alpha: int = _flag(64, "Scale of LoRA: its output is multiplied by alpha / rank.")
    bottleneck_dim: int = _flag(64, "Width of the bottleneck adapters.")
    train_front_end: bool = _flag(False, "Train the encoder's convolutional front end too (with --trainable all).")
    selection: Literal["dev", "last", "oracle"] = _flag(
        "dev", "Which epoch is kept: the best UA on dev, the last, or the best UA on the test fold (optimistic)."
    )
    gradient_surgery: Literal["none", "pcgrad"] = _flag(
        "none", "pcgrad: take out of each loss's gradient on the encoder what pulls against another loss's."
    )
    measure_oracle: bool = _flag(
        False, "Log the figures of the test fold after each epoch too; nothing is chosen by them."
    )
    dropout: float | None = _flag(None, "Dropout inside the Transformer, a probability. [the encoder's own]")
    head_dropout: float = _flag(0.0, "Dropout of the embeddings before the classifiers, a probability.")
    mask_time_prob: float | None = _flag(
        None, "SpecAugment: share of frames masked while training. [the encoder's own]"
    )
    mask_feature_prob: float | None = _flag(
        None, "SpecAugment: share of channels masked while training. [the encoder's own]"
    )

    def __post_init__(self):
        if unknown := [task for task in self.tasks if task not in TASKS]:
            raise UserError(f"--tasks {unknown[0]}: must be among {', '.join(TASKS)}")
        self._check_emotion()
        self.tasks = [task for task in TASKS if task in self.tasks]
        auxiliary = len(self.tasks) - 1
        if "emotion" in self.tasks and not 0 <= auxiliary * self.aux_weight < 1:
            raise UserError(f"--aux_weight {self.aux_weight}: leaves emotion no weight beside {auxiliary} other tasks")
        others = [task for task in self.tasks if task not in ("emotion", "asr")]
        if self.fusion == "concat" and not (others and "emotion" in self.tasks):
            self.fusion = "none"  # nothing to fuse: the default of stage 2 with --tasks emotion
        if self.scl != "none" and not (others and "emotion" in self.tasks):
            self.scl = "none"
        if len(self.tasks) == 1 or self.trainable == "heads":
            self.gradient_surgery = "none"  # one loss pulls against nothing, a frozen encoder at nothing
        if self.train_front_end and self.trainable != "all":
            raise UserError(
                f"--train_front_end: --trainable {self.trainable} freezes the front end; drop one of the two"
            )
        self._check_ranges()

    def _check_emotion(self) -> None:
        if "emotion" not in self.tasks:
            raise UserError("--tasks: emotion must be among them")

    def _check_ranges(self) -> None:
        for name in ("embedding_dim", "lora_rank", "lora_alpha", "bottleneck_dim"):
            if getattr(self, name) < 1:
                raise UserError(f"--{name} {getattr(self, name)}: must be at least 1")
        for name in ("dropout", "head_dropout", "mask_time_prob", "mask_feature_prob"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < 1:
                raise UserError(f"--{name} {value}: must be a probability, from 0 to less than 1")
        if not self.scl_weight >= 0:
            raise UserError(f"--scl_weight {self.scl_weight}: must not be negative")


@dataclass
class Stage1Arguments(MethodArguments):
    """Stage 1: all parameters of a pretrained encoder, for emotion and speech recognition (eq. 4)."""

    encoder: str | None = _flag(
        None,
        "Hub id or folder of the pretrained encoder. "
        "[facebook/wav2vec2-xls-r-300m; with --corpus demo a small one of its architecture, made on the spot]",
    )
    tasks: list[str] = _flag(
        ["emotion", "asr"],
        "Tasks that are trained, any of emotion asr gender style; without emotion, as a preparation for stage 2, only "
        "with --selection last.",
    )
    trainable: Literal["all", "adapters", "heads"] = _flag(
        "all",
        "all parameters; adapters on a frozen encoder; or heads, on a learned average of the frozen encoder's layers.",
    )

    def __post_init__(self):
        super().__post_init__()
        if self.trainable == "heads":  # what a frozen encoder makes of an utterance is always the same
            for name in ("dropout", "mask_time_prob", "mask_feature_prob"):
                setattr(self, name, getattr(self, name) or 0.0)

    def _check_emotion(self) -> None:
        if "emotion" not in self.tasks and self.selection != "last":
            raise UserError(
                "--tasks: emotion must be among them, since epochs are compared by its UA; or take --selection last"
            )


@dataclass
class Stage2Arguments(MethodArguments):
    """Stage 2: adapters on the frozen model of stage 1, for emotion, gender and style (eqs. 5 and 7)."""

    stage1: str | None = _flag(
        None, "Hub id or folder of the stage-1 model. [the stage-1 run of the same corpus and fold]"
    )
    tasks: list[str] = _flag(["emotion", "gender", "style"], "Tasks that are trained, any of emotion asr gender style.")
    trainable: Literal["all", "adapters"] = _flag("adapters", "adapters on the frozen model, or all parameters.")
    fusion: Literal["none", "concat"] = _flag("concat", "What the emotion classifier sees: x_e, or x_e, x_g and x_s.")
    scl: Literal["none", "cos", "norm"] = _flag("cos", "Self-contrastive loss: cos (eq. 7), norm (eq. 6) or none.")


@dataclass
class RunArguments(TrainingArguments):
    """Every flag of transformers' `TrainingArguments`, with the defaults of the paper and of this project.

    What differs from transformers: 200 epochs, learning rate 1e-4 with linear warm-up over the first tenth and linear
    decay, 16 utterances an update, AdamW with weight decay 0.01, bf16 where the device has it, evaluation and a
    checkpoint where dev got better or the last one is ten minutes old, of which the best and the last are kept.
    """

    output_dir: str | None = _flag(None, "Folder of the run. [runs/<corpus>/stage<k>/fold<n>]")
    num_train_epochs: float = _flag(200.0, "Epochs.")
    learning_rate: float = _flag(1e-4, "Peak learning rate.")
    warmup_steps: float = _flag(0.1, "Linear warm-up: a share of all updates where below 1, else a number of updates.")
    gradient_cosines: bool = _flag(
        False, "Measure the cosines between the losses' gradients on the encoder, for about 3 %% of the time."
    )
    head_start: float = _flag(
        0.0, "Share of all updates in which the heads are trained alone, before the encoder joins them."
    )
    adam_beta2: float = _flag(0.98, "AdamW's decay of squared gradients; short, for CTC's first ones are huge.")
    weight_decay: float = _flag(0.01, "AdamW's weight decay.")
    per_device_train_batch_size: int = _flag(
        0, f"Utterances a batch on each device. [0: {BATCH_SIZE} over all devices and accumulation steps]"
    )
    per_device_eval_batch_size: int = _flag(32, "Utterances a batch on each device where nothing is trained.")
    eval_accumulation_steps: int | None = _flag(1, "Batches of predictions that are kept on the device.")
    # Without it, torchrun's processes on a CPU would each believe that they are alone.
    use_cpu: bool = _flag(not torch.accelerator.is_available(), "Train on the CPU. [where there is nothing else]")
    bf16: bool | None = _flag(None, "Train in bfloat16. [where a CUDA device has it]")
    eval_strategy: str = _flag("epoch", "When dev is evaluated: epoch, steps (with --eval_steps) or no.")
    save_strategy: str = _flag(
        "epoch",
        "When a checkpoint may be written: epoch, steps (with --save_steps) or no; with --selection dev as dev is "
        "evaluated.",
    )
    save_minutes: float = _flag(
        10.0, "Minutes from one checkpoint to the next, beside those that are written where dev got better."
    )
    logging_strategy: str = _flag("epoch", "When losses are logged: epoch or steps (with --logging_steps).")
    save_total_limit: int | None = _flag(1, "Checkpoints kept beside the best one.")
    metric_for_best_model: str | None = _flag("emotion_ua", "What --selection dev and oracle compare.")
    greater_is_better: bool | None = _flag(None, "Whether more of it is better. [yes, but of loss, WER and CER]")
    remove_unused_columns: bool | None = _flag(False, "Left off: the collator needs all columns.")
    ddp_find_unused_parameters: bool | None = _flag(False, "Left off: every trainable parameter has a gradient.")
    dataloader_num_workers: int = _flag(
        4 if torch.cuda.is_available() else 0, "Processes that make batches. [4 where there is CUDA, else 0]"
    )
    dataloader_pin_memory: bool = _flag(torch.cuda.is_available(), "Pin batches in memory. [where there is CUDA]")
    logging_nan_inf_filter: bool = _flag(
        False, "Log the mean of the losses before in place of one that is not finite; hides it, and waits in each step."
    )
    label_names: list[str] | None = _flag(["row"], "Left so: rows come back beside the predictions.")
    push_to_hub: bool = _flag(False, "Publish the run as --hub_model_id when it is done, as publish.py does.")
    hub_model_id: str | None = _flag(None, "Where on the Hub the run is published: namespace/name.")
    hub_private_repo: bool = _flag(True, "Publish in a private repository; --no_hub_private_repo in a public one.")

    def __post_init__(self):
        for name, least in (
            ("num_train_epochs", 0.01),
            ("learning_rate", 0),
            ("seed", 0),
            ("gradient_accumulation_steps", 1),
            ("per_device_train_batch_size", 0),
            ("per_device_eval_batch_size", 1),
        ):
            if not getattr(self, name) >= least:
                raise UserError(f"--{name} {getattr(self, name)}: must be at least {least}")
        for name in ("adam_beta1", "adam_beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"--{name} {getattr(self, name)}: must be from 0 to less than 1")
        if not 0 <= self.head_start < 1:
            raise UserError(f"--head_start {self.head_start}: must be a share of the updates, from 0 to less than 1")
        if self.head_start > 0 and self.lr_scheduler_type in ("reduce_lr_on_plateau", "greedy"):
            raise UserError(
                f"--head_start {self.head_start}: needs a schedule that is known beforehand, not --lr_scheduler_type "
                f"{self.lr_scheduler_type}"
            )
        self.dataloader_persistent_workers &= self.dataloader_num_workers > 0
        if self.accelerator_config is None and self.dataloader_pin_memory:
            self.accelerator_config = {"non_blocking": True}  # else each batch's copy waits for the step before it
        if self.bf16 is None:
            self.bf16 = torch.cuda.is_available() and torch.cuda.is_bf16_supported()
        if self.per_device_train_batch_size == 0:
            share = int(os.environ.get("WORLD_SIZE", 1)) * self.gradient_accumulation_steps
            if BATCH_SIZE % share:
                raise UserError(
                    f"{BATCH_SIZE} utterances cannot be shared by {share} (processes x --gradient_accumulation_steps); "
                    "set --per_device_train_batch_size"
                )
            self.per_device_train_batch_size = BATCH_SIZE // share
        if self.push_to_hub and not self.hub_model_id:
            raise UserError("--push_to_hub needs --hub_model_id: where on the Hub, namespace/name")
        if self.greater_is_better is None and self.metric_for_best_model:
            self.greater_is_better = not self.metric_for_best_model.endswith(("loss", "wer", "cer"))
        if self.dataloader_drop_last:
            raise UserError("--dataloader_drop_last: would leave test utterances out of the figures; drop it")
        super().__post_init__()
        dealing = self.accelerator_config
        if self.world_size > 1 and (self.ignore_data_skip or dealing.split_batches or dealing.dispatch_batches):
            raise UserError(
                "--ignore_data_skip, and split_batches or dispatch_batches of --accelerator_config: with several "
                "processes it would not be known which utterances an epoch has had; drop them"
            )
        # Else the Trainer would spread each batch over all GPUs that it sees: processes do that, and count them.
        self._n_gpu = min(1, self.n_gpu)
        # The Trainer itself would push checkpoint by checkpoint, in many commits, with a pickle in each.
        self.publish, self.push_to_hub = self.push_to_hub, False

    @property
    def utterances_an_update(self) -> int:
        """Utterances that one update sees, over all processes and accumulation steps."""
        return self.train_batch_size * self.world_size * self.gradient_accumulation_steps
