"""The rows of the tables as data: what each trains, and the paper's metrics.

A row of one stage is a model of stage 1; a row of two stages continues from one. Stage-1 models with the same
settings are the same model, trained once (`ser_mtl.tables.plan`).
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from ser_mtl.tasks import CLASSIFICATION_TASKS


@dataclass(frozen=True)
class Stage:
    """One training, as flags of run_stage1.py or run_stage2.py, or of another program.

    A program takes the flags of run_stage1.py, and likewise leaves `args.json` and `results.json` in its folder. A
    stage without tasks is an intermediate step: its `results.json` has no metrics.
    """

    tasks: str
    trainable: str
    fusion: str = "none"
    scl: str = "none"
    more: str = ""  # further flags; the command line overrides them
    one_process: bool = False  # even with several GPUs: the method needs the whole batch
    program: str = ""  # a module, run as `python -m`; run_stage1.py or run_stage2.py if empty
    before: tuple["Before", ...] = ()  # further runs that it starts from

    def without(self, tasks: list[str]) -> "Stage":
        """The same stage without these tasks."""
        left = [task for task in self.tasks.split() if task not in tasks]
        before = tuple(replace(step, stage=step.stage.without(tasks)) for step in self.before)
        stage = replace(self, tasks=" ".join(left), before=before)
        return stage if set(left) & set(CLASSIFICATION_TASKS[1:]) else replace(stage, fusion="none", scl="none")

    def flags(self) -> list[str]:
        """The flags as words of a command line."""
        chosen = ["--trainable", self.trainable, "--fusion", self.fusion, "--scl", self.scl]
        tasks = ["--tasks", *self.tasks.split()] if self.tasks else []
        return [*tasks, *chosen, *self.more.split()]

    def stages(self) -> "Iterator[Stage]":
        """This stage, and those of the runs that it starts from."""
        yield self
        for step in self.before:
            yield from step.stage.stages()


@dataclass(frozen=True)
class Before:
    """A run that another one starts from: the flag that names its folder, the run's name, and its stage.

    Rows that name the same run share it. A run that is a row by itself has the name of that row.
    """

    flag: str
    name: str
    stage: Stage


@dataclass(frozen=True)
class Paper:
    """The paper's metrics of a row on IEMOCAP, percent; None if it gives none."""

    ua: float | None = None
    wa: float | None = None
    wer: float | None = None
    gender_ua: float | None = None
    style_ua: float | None = None

    def value(self, metric: str) -> float | None:
        """The paper's number for a metric, by its name in `ser_mtl.metrics.METRIC`."""
        short = {"emotion_ua": "ua", "emotion_wa": "wa", "asr_wer": "wer"}
        return getattr(self, short.get(metric, metric), None)


@dataclass(frozen=True)
class Protocol:
    """How the quoted scores of an earlier system were obtained; "?" where its text was not available."""

    speaker_independent: str
    chosen_on: str  # the utterances that its checkpoint was selected on


@dataclass(frozen=True)
class Row:
    """A row of a table: its id, the table's number, the paper's name for it, its stages, the paper's metrics."""

    id: str
    table: int
    name: str
    paper: Paper
    stage1: Stage
    stage2: Stage | None = None
    quoted: Protocol | None = None  # of an earlier system
    needs: str = ""  # tasks without which there is no such row
    same_as: str | None = None  # an earlier row with the same stages, whose runs are this row's too

    @property
    def run(self) -> str:
        """The name of the runs that give its metrics."""
        return self.same_as or self.id

    def stages(self) -> list[Stage]:
        """All its stages, and those of the runs that they start from."""
        return [one for stage in (self.stage1, self.stage2) if stage for one in stage.stages()]

    @property
    def last(self) -> Stage:
        """The stage that gives the row's metrics."""
        return self.stage2 or self.stage1

    def runs_before(self) -> tuple[Before, ...]:
        """The runs that the last stage starts from."""
        stage1 = (Before("--stage1", f"{self.id}-stage1", self.stage1),) if self.stage2 else ()
        return (*stage1, *self.last.before)

    def without(self, tasks: list[str]) -> "Row":
        """The same row without these tasks in both stages."""
        return replace(self, stage1=self.stage1.without(tasks), stage2=self.stage2 and self.stage2.without(tasks))


_ADAPTERS_SER_ASR = Stage("emotion asr", "adapters")
_FULL_SER_ASR = Stage("emotion asr", "all")
_FULL_ALL = Stage("emotion asr gender style", "all")
_ALL_THREE = "emotion gender style"
_PROPOSED = Stage(_ALL_THREE, "adapters", "concat", "cos")
_PCGRAD = replace(_FULL_ALL, more="--gradient_surgery pcgrad", one_process=True)
_MERGED = Stage("emotion", "all", one_process=True, before=(
    Before("--merge_asr", "t6-merge-asr", Stage("asr", "all", more="--selection last")),
    Before("--merge_emotion", "t6-merge-emotion", Stage("emotion", "all")),
))  # fmt: skip


def _scaled(stage: Stage, scale: str) -> Stage:
    return replace(stage, more=f"--ctc_scale {scale}")


# Chen and Rudnicky 2023: V-FT, and what comes before it in TAPT and P-TAPT.
_ADAM = "--per_device_train_batch_size 64 --learning_rate 1e-4 --adam_beta2 0.999 --weight_decay 0 --max_grad_norm 0"
_TUNED = f"{_ADAM} --class_weights balanced --mask_time_prob 0.08 --mask_feature_prob 0.05"
_CONSTANT = "--lr_scheduler_type constant_with_warmup --warmup_steps 0"
_VFT = Stage(
    "emotion", "all", one_process=True, more=f"--emotion_head rectified {_TUNED} --num_train_epochs 15 {_CONSTANT}"
)
_FRAMES = Stage(
    "emotion",
    "all",
    one_process=True,
    more=f"--emotion_head frames {_TUNED} --num_train_epochs 145 --warmup_steps 0.05",
)
_PRETRAIN = Stage(
    "",
    "all",
    one_process=True,
    program="ser_mtl.programs.pretrain",
    more=f"--objective contrastive {_ADAM} --num_train_epochs 290 --warmup_steps 0.005",
)
_UNITS = replace(_PRETRAIN, more=_PRETRAIN.more.replace("contrastive", "units"),
                 before=(Before("--frames", "t4-chen-ptapt-frames", _FRAMES),))  # fmt: skip
_CLEAN = Protocol("yes", "nothing: last epoch")

ROWS = (
    Row("t1-adapters-ser", 1, "adapters: SER", Paper(68.51, 67.83), Stage("emotion", "adapters")),
    Row("t1-adapters-ser-asr", 1, "adapters: SER, ASR", Paper(71.70, 71.28, wer=23.68), _ADAPTERS_SER_ASR),
    Row("t1-adapters-ser-gender-style", 1, "adapters: SER, gender, style",
        Paper(70.19, 69.85, gender_ua=85.82, style_ua=80.34), Stage(_ALL_THREE, "adapters")),
    Row("t1-full-ser", 1, "all parameters: SER", Paper(70.88, 71.57), Stage("emotion", "all")),
    Row("t1-full-ser-asr", 1, "all parameters: SER, ASR", Paper(75.40, 75.17, wer=19.99), _FULL_SER_ASR),
    Row("t1-full-ser-gender-style", 1, "all parameters: SER, gender, style",
        Paper(71.05, 70.27, gender_ua=86.37, style_ua=82.16), Stage(_ALL_THREE, "all")),
    Row("t1-full-all", 1, "all parameters: SER, ASR, gender, style",
        Paper(76.19, 75.49, wer=20.14, gender_ua=97.52, style_ua=89.29), _FULL_ALL),
    Row("t2-adapters-adapters", 2, "adapters, then adapters", Paper(71.89, 71.46),
        _ADAPTERS_SER_ASR, Stage("emotion", "adapters")),
    Row("t2-full-full", 2, "all parameters, then all parameters", Paper(74.92, 73.81),
        _FULL_SER_ASR, Stage("emotion", "all")),
    Row("t2-full-adapters", 2, "all parameters, then adapters", Paper(76.54, 76.07),
        _FULL_SER_ASR, Stage("emotion", "adapters")),
    Row("t3-mtl", 3, "x_e alone", Paper(77.13, 76.30, gender_ua=98.48, style_ua=91.33),
        _FULL_SER_ASR, Stage(_ALL_THREE, "adapters")),
    Row("t3-concat", 3, "fusion", Paper(76.89, 76.06, gender_ua=98.77, style_ua=89.29),
        _FULL_SER_ASR, Stage(_ALL_THREE, "adapters", "concat")),
    Row("t3-scl-norm", 3, "fusion and SCL_norm", Paper(77.91, 77.24, gender_ua=98.31, style_ua=90.23),
        _FULL_SER_ASR, Stage(_ALL_THREE, "adapters", "concat", "norm")),
    Row("t3-scl-cos", 3, "fusion and SCL_cos (the proposed system)",
        Paper(78.49, 77.85, gender_ua=98.64, style_ua=90.57),
        _FULL_SER_ASR, _PROPOSED),
    # Earlier systems: docs/earlier_systems.md.
    Row("t4-pepino", 4, "Pepino et al. 2021: heads on a frozen encoder", Paper(67.20),
        Stage("emotion", "heads",
              more="--embedding_dim 128 --per_device_train_batch_size 32 --num_train_epochs 100", one_process=True),
        quoted=Protocol("yes, but with statistics of the test speakers", "dev")),
    Row("t4-gao-2023", 4, "Gao et al. 2023: ASR and gender, then SER, all parameters", Paper(76.10, 74.94),
        Stage("asr gender", "all", more="--selection last"), Stage("emotion", "all"), quoted=Protocol("?", "?")),
    Row("t4-cai", 4, "Cai et al. 2021: SER, ASR, no hidden layer", Paper(wa=78.15),
        Stage("emotion asr", "all", one_process=True,
              more="--emotion_head linear --train_front_end --ctc_scale utterance --aux_weight 0.0909 "
              "--learning_rate 5e-5 --adam_beta2 0.999 --weight_decay 0 "
              "--per_device_train_batch_size 8 --num_train_epochs 100"),
        quoted=Protocol("no", "nothing: last epoch, with the test watched"), needs="asr"),
    Row("t4-chen-vft", 4, "Chen and Rudnicky 2023, V-FT", Paper(69.9), _VFT, quoted=_CLEAN),
    Row("t4-chen-tapt", 4, "Chen and Rudnicky 2023, TAPT: more pretraining", Paper(73.5),
        replace(_VFT, before=(Before("--encoder", "t4-chen-tapt-pretrain", _PRETRAIN),)), quoted=_CLEAN),
    Row("t4-chen-ptapt", 4, "Chen and Rudnicky 2023, P-TAPT: by units", Paper(74.30),
        replace(_VFT, before=(Before("--encoder", "t4-chen-ptapt-units", _UNITS),)), quoted=_CLEAN),
    Row("t4-zou", 4, "Zou et al. 2022 without ImageNet weights",
        Paper(71.05, 69.80),
        Stage("emotion", "all", one_process=True,
              more="--emotion_head co_attention --train_front_end --learning_rate 1e-5 --adam_beta2 0.999 "
              f"--per_device_train_batch_size 32 --num_train_epochs 100 {_CONSTANT}"),
        quoted=Protocol("yes", "the test")),
    Row("t4-ioannides", 4, "after Ioannides et al. 2023: layer attention", Paper(wa=74.32),
        Stage("emotion", "heads", one_process=True,
              more="--emotion_head layer_attention --per_device_train_batch_size 8 --num_train_epochs 35 "
              "--learning_rate 1e-4"),
        quoted=Protocol("?", "? (the same author's later work: the test)")),
    Row("t4-li", 4, "after Li et al. 2022: speech and text fused", Paper(wa=63.40),
        Stage("emotion asr", "all", more="--emotion_head asr_fusion"), quoted=Protocol("?", "?"), needs="asr"),
    Row("t5-full-all-pcgrad", 5, "all parameters: SER, ASR, gender, style; PCGrad", Paper(), _PCGRAD),
    *(row for scale, words in (("utterance", "CTC by utterance"), ("batch", "CTC by update"))
      for row in (
        Row(f"t5-full-ser-asr-{scale}", 5, f"all parameters: SER, ASR; {words}", Paper(),
            _scaled(_FULL_SER_ASR, scale), needs="asr"),
        Row(f"t5-full-all-{scale}", 5, f"all parameters: all tasks; {words}", Paper(),
            _scaled(_FULL_ALL, scale), needs="asr"),
        Row(f"t5-scl-cos-{scale}", 5, f"the proposed system; {words}", Paper(),
            _scaled(_FULL_SER_ASR, scale), _PROPOSED, needs="asr"),
    )),
    Row("t6-two-stages", 6, "two stages (the proposed system)", Paper(78.49, 77.85), _FULL_SER_ASR, _PROPOSED,
        same_as="t3-scl-cos"),
    Row("t6-order", 6, "ASR, gender, style first, then SER; all parameters", Paper(),
        Stage("asr gender style", "all", more="--selection last"), Stage("emotion", "all")),
    Row("t6-merge", 6, "models of ASR and SER merged, learned coefficients", Paper(), _MERGED,
        needs="asr"),
    Row("t6-merge-half", 6, "the same, one half of each, no training", Paper(),
        replace(_MERGED, more="--merge half"), needs="asr"),
    Row("t6-surgery-pcgrad", 6, "one stage of all tasks, PCGrad", Paper(), _PCGRAD, same_as="t5-full-all-pcgrad"),
    Row("t6-surgery-upgrad", 6, "one stage of all tasks, UPGrad", Paper(),
        replace(_FULL_ALL, more="--gradient_surgery upgrad", one_process=True)),
    Row("t6-layers", 6, "two stages, heads on an average of all layers", Paper(),
        replace(_FULL_SER_ASR, more="--layer_weights"), replace(_PROPOSED, more="--layer_weights True")),
    Row("t6-single", 6, "one stage of all tasks", Paper(76.19, 75.49), _FULL_ALL, same_as="t1-full-all"),
)  # fmt: skip

NOT_REBUILT = {
    "Fang et al. 2023 (not rebuilt: its text was not at hand)": (Paper(74.03, 74.95), Protocol("?", "?")),
}
"""Systems of Table 4 without a row: by name, the quoted metrics and how they were obtained."""

TITLES = {
    1: "one stage",
    2: "two stages; stage 1 trains SER and ASR, stage 2 SER alone",
    3: "stage 1 trains all parameters on SER and ASR, stage 2 adapters on SER, gender and style",
    4: "earlier systems, rebuilt and trained like all other rows; the papers' own numbers are quoted",
    5: "not in the paper: a single stage with PCGrad (its reference 12), and CTC as a sum: the paper gives no scale",
    6: "not in the paper: two stages and their rivals, other ways to keep the tasks from conflicting",
}
"""Titles of the tables: the paper's, and one of ours."""


@dataclass(frozen=True)
class Claim:
    """The claim that row `better` beats row `worse` on UA: the paper's, or another."""

    text: str
    better: str
    worse: str
    of_paper: bool = True


CLAIMS = (
    Claim("Recognising speech as well helps emotion (one stage).", "t1-full-ser-asr", "t1-full-ser"),
    Claim("Recognising speech as well helps emotion with adapters alone.", "t1-adapters-ser-asr", "t1-adapters-ser"),
    Claim("In one stage, all parameters are better than adapters.", "t1-full-ser-asr", "t1-adapters-ser-asr"),
    Claim("In stage 2, adapters are better than all parameters.", "t2-full-adapters", "t2-full-full"),
    Claim("Adapters need a first stage that trains all parameters.", "t2-full-adapters", "t2-adapters-adapters"),
    Claim("A second stage of adapters beats a single stage.", "t2-full-adapters", "t1-full-ser-asr"),
    Claim("Gender and style help emotion in stage 2.", "t3-mtl", "t2-full-adapters"),
    Claim("With fusion, SCL_norm is better than no self-contrastive loss.", "t3-scl-norm", "t3-concat"),
    Claim("With fusion, SCL_cos is better than no self-contrastive loss.", "t3-scl-cos", "t3-concat"),
    Claim("SCL_cos is better than SCL_norm, at a weight that the paper does not give.", "t3-scl-cos", "t3-scl-norm"),
    Claim("The proposed system beats learning emotion alone.", "t3-scl-cos", "t1-full-ser"),
    Claim("The proposed system beats single-stage multi-task learning.", "t3-scl-cos", "t1-full-all"),
    Claim("PCGrad improves single-stage multi-task learning.", "t5-full-all-pcgrad", "t1-full-all", False),
    Claim("The proposed system beats single-stage multi-task learning with PCGrad.",
          "t3-scl-cos", "t5-full-all-pcgrad", False),
    *(claim for scale, words in (("utterance", "an utterance"), ("batch", "an update")) for claim in (
        Claim(f"Recognising speech as well helps emotion (one stage), with CTC summed over {words}.",
              f"t5-full-ser-asr-{scale}", "t1-full-ser", False),
        Claim(f"The proposed system beats single-stage multi-task learning, with CTC summed over {words}.",
              f"t5-scl-cos-{scale}", f"t5-full-all-{scale}", False),
    )),
    Claim("Two stages beat a single stage of all tasks.", "t6-two-stages", "t6-single", False),
    Claim("Two stages beat a single stage with PCGrad.", "t6-two-stages", "t6-surgery-pcgrad", False),
    Claim("Two stages beat a single stage with UPGrad.", "t6-two-stages", "t6-surgery-upgrad", False),
    Claim("Two stages beat the other order, auxiliary tasks first.", "t6-two-stages", "t6-order", False),
    Claim("Two stages beat merging a model of speech recognition and one of emotion.",
          "t6-two-stages", "t6-merge", False),
    Claim("Two stages beat the same merge with one half of each.", "t6-two-stages", "t6-merge-half", False),
    Claim("Two stages are better with heads on a learned average of all layers.", "t6-layers", "t6-two-stages", False),
)  # fmt: skip
"""Each is a paired test of the report."""
