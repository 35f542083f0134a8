"""The arguments of `run_tables.py`, and the flags that each run gets from them."""

import os
import shlex
import sys
from collections.abc import Collection
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import SimpleNamespace
from typing import Literal

from datasets import Dataset, DatasetDict
from transformers.hf_argparser import HfArg
from typing_extensions import TypedDict

from ser_mtl import cluster
from ser_mtl.corpora.dealing import FOLDS
from ser_mtl.corpora.loading import name_with_folders
from ser_mtl.corpora.targets import unusable_tasks
from ser_mtl.errors import UserError
from ser_mtl.files import read_json, write_json
from ser_mtl.recipe import Formatter, Parser, StageParser
from ser_mtl.tables.grid import cells
from ser_mtl.tables.plan import Run, choose_rows, plan
from ser_mtl.tables.rows import TITLES
from ser_mtl.tables.rows import Stage as RowStage
from ser_mtl.tasks import TASKS, VALUE_TASKS
from ser_mtl.training.arguments import CorpusArguments
from ser_mtl.training.flags import ADAPTERS, AUXILIARY, CTC, SCL
from ser_mtl.training.stage import Stage, Stage1, Stage2

STAGES: dict[int, type[Stage]] = {1: Stage1, 2: Stage2}
# Settings of a run that the rows, or flags of run_tables.py itself, decide.
_SET_BY_ROWS = ("fold", "seed", "output_dir", "stage1", "tasks", "trainable", "fusion", "scl", "emotion_head")


@dataclass
class TablesArguments:
    """The rows, their corpus, and how they are run."""

    tables: list[int] = HfArg(
        default_factory=list,
        help="Tables of the paper, any of 1 2 3 4; 5, the scale of CTC; 6, the rivals. [1 2 3, without --rows]",
    )
    rows: list[str] = HfArg(default_factory=list, help="Ids of single rows, such as t3-scl-cos.")
    folds: list[int] = HfArg(
        default_factory=lambda: list(FOLDS), help="Folds to test on; each row is trained once for each."
    )
    seeds: list[int] = HfArg(
        default_factory=lambda: [0], help="Seeds; each row is trained once for each fold and seed."
    )
    corpus: str = HfArg(default="iemocap", help="Name or description of the corpus, as for run_stage1.py.")
    data_dir: list[str] | None = HfArg(default=None, help="Where the corpus is, as for run_stage1.py.")
    encoder: str | None = HfArg(default=None, help="Hub id or folder of the pretrained encoder, as for run_stage1.py.")
    leave_out: list[str] = HfArg(
        default_factory=list, help="Tasks that the corpus lacks, any of asr gender style: left out of all rows."
    )
    stage1_flags: str = HfArg(
        default="", help="Further flags of run_stage1.py in one string: --stage1_flags '--num_train_epochs 8'"
    )
    stage2_flags: str = HfArg(
        default="", help="Further flags of run_stage2.py. Flags unknown to run_tables.py go to both."
    )
    adapters_flags: str = HfArg(
        default="", help="Further flags of every run that trains adapters: --adapters_flags '--learning_rate 5e-4'"
    )
    full_flags: str = HfArg(default="", help="Further flags of every run that trains all parameters.")
    heads_flags: str = HfArg(default="", help="Further flags of every run that trains heads on a frozen encoder.")
    row_flags: list[str] = HfArg(
        default_factory=list,
        help="Further flags of single rows, each in one string after its id as --dry_run lists it: "
        "--row_flags 't3-scl-norm --num_train_epochs 120'",
    )
    grid: list[str] = HfArg(
        default_factory=list,
        help="Train the rows with all combinations of settings, and choose on the development set: "
        "--grid learning_rate=5e-5,1e-4 scl_weight=0.5,1",
    )
    measure_oracle: bool = HfArg(
        default=False,
        help="Measure UA on the test fold after each epoch, to show how much choosing epochs on it would add.",
    )
    output_dir: Path = HfArg(default=None, help="Folder of all runs and of the report. [runs/tables/<corpus>]")
    jobs: int = HfArg(default=1, help="Runs at a time on this machine; they share its GPUs and cores.")
    launcher: Literal["local", "slurm"] = HfArg(
        default="local", help="local: this machine; slurm: each run is a job of a cluster."
    )
    slurm_options: list[str] = HfArg(
        default_factory=list,
        help="Options of submitit, name=value: timeout_min=2880 gpus_per_node=1 slurm_partition=gpu ...",
    )
    hub_token: str | None = HfArg(
        default=None, help="Token for the Hub. The runs get it as HF_TOKEN; it is written nowhere. [that of the login]"
    )
    dry_run: bool = HfArg(default=False, help="Print the plan and, as far as known, its hours; start nothing.")
    report_only: bool = HfArg(default=False, help="Start nothing; write the report of the finished runs.")
    cross: list[Path] = HfArg(
        default_factory=list,
        help="Start nothing; write a table of train corpus against test corpus from these folders of runs and of "
        "ser-mtl evaluate. The default --output_dir is then runs/tables/cross.",
    )
    command: str = field(default="", init=False)  # as typed, without folders
    flags: list[str] = field(default_factory=list, init=False)  # for both stages
    corpus_arguments: CorpusArguments = field(init=False)  # as the runs read them; not for --cross

    def __post_init__(self):
        if unknown := sorted(set(self.tables) - set(TITLES)):
            raise UserError(f"--tables {unknown[0]}: must be among {', '.join(map(str, TITLES))}")
        if unknown := sorted(set(self.folds) - set(FOLDS)):
            raise UserError(f"--folds {unknown[0]}: must be among 1 to 5")
        trained = [task for task in TASKS if task != "emotion" and task not in VALUE_TASKS]
        for seed in self.seeds:
            if not 0 <= seed < 2**32:
                raise UserError(f"--seeds {seed}: must be from 0 to {2**32 - 1}")
        if unknown := sorted(set(self.leave_out) - set(trained)):
            raise UserError(f"--leave_out {unknown[0]}: must be among {', '.join(trained)}")
        self.options_of_slurm()
        if self.jobs < 1:
            raise UserError(f"--jobs {self.jobs}: must be at least 1")
        if self.hub_token:
            os.environ["HF_TOKEN"], self.hub_token = self.hub_token, None
        self.tables = self.tables or ([] if self.rows else [1, 2, 3])
        self.folds, self.seeds = sorted(set(self.folds)), sorted(set(self.seeds))
        if self.cross and self.grid:
            raise UserError("--grid: trains runs, and --cross starts none; drop one of the two")
        name = "cross" if self.cross else name_with_folders(self.corpus, self.data_dir)
        self.output_dir = self.output_dir or Path("runs/tables") / name
        if self.grid:
            cells(self.grid)
            self.output_dir /= "grid"
        if self.output_dir.exists() and not self.output_dir.is_dir():
            raise UserError(f"--output_dir {self.output_dir}: is not a folder; name another")

    def check_fits(self, corpus: Dataset) -> None:
        """Check that the corpus has the folds and tasks of the rows, before the first of them is trained.

        Raises:
            UserError: folds without utterances, or tasks that nobody annotated.
        """
        held = sorted(set(corpus["fold"]) - {None})
        if missing := sorted(set(self.folds) - set(held)):
            raise UserError(
                f"--folds {missing[0]}: the corpus has no such test set; use --folds {' '.join(map(str, held))}"
            )
        rows = choose_rows(self.tables, self.rows, self.leave_out)
        runs = plan(rows, self.folds[:1], self.seeds[:1], self.output_dir)
        tasks = {task for run in runs for task in run.settings.tasks.split()}
        if lacking := list(unusable_tasks(DatasetDict({"train": corpus}), tasks)):
            raise UserError(f"--corpus {self.corpus}: has no labels for {lacking[0]}; --leave_out {' '.join(lacking)}")

    def flags_of(self, run: Run) -> list[str]:
        """The command line of a run, after the name of its script."""
        encoder = ["--encoder", self.encoder] if self.encoder and run.stage == 1 else []
        oracle = ["--measure_oracle"] if self.measure_oracle and run.settings.tasks else []
        start = [word for flag, one in run.starts for word in (flag, str(one.folder))]
        place = ["--fold", str(run.fold), "--seed", str(run.seed), "--output_dir", str(run.folder)]
        stage_flags = self.stage1_flags if run.stage == 1 else self.stage2_flags
        kind_flags = {"adapters": self.adapters_flags, "all": self.full_flags, "heads": self.heads_flags}
        names = {run.name, *run.rows}
        row_flags = [word for name, *words in map(shlex.split, self.row_flags) if name in names for word in words]
        shared = [*self.flags, *shlex.split(stage_flags), *shlex.split(kind_flags[run.settings.trainable])]
        more = [*without(shared, idle_in(run.settings)), *row_flags]  # the last one wins
        cell = [f"--{pair}" for pair in run.flags]
        flags = [*encoder, *start, *run.settings.flags(), *oracle, *more, *cell]
        return [*place, "--recipe", "paper", *self.corpus_flags, *flags]

    @property
    def corpus_flags(self) -> list[str]:
        """The flags of the corpus, as words of a command line."""
        return ["--corpus", self.corpus, *(["--data_dir", *self.data_dir] if self.data_dir else [])]

    def options_of_slurm(self) -> dict[str, str | int]:
        """`--slurm_options` by name, numbers as numbers."""
        return cluster.options_of(self.slurm_options)


def parse_arguments(argv: list[str] | None = None) -> TablesArguments:
    """Read the command line. Flags that are unknown here must be flags of both stages.

    Raises:
        UserError: an unknown flag, one that the rows set, or a value or row that makes no sense.
    """
    description = sys.modules["__main__"].__doc__
    parser = Parser(TablesArguments, description=description, formatter_class=Formatter, allow_abbrev=False)
    parser.usage = "%(prog)s [--tables N ... | --rows ID ...] [--flag value ...]"
    args, rest = parser.parse_args_into_dataclasses(argv, return_remaining_strings=True, look_for_args_file=False)
    args.command = _as_reported(sys.argv[1:] if argv is None else argv)
    args.flags = rest
    kind_flags = [word for name in ("adapters", "full", "heads")
                  for word in _words(f"--{name}_flags", getattr(args, f"{name}_flags"))]  # fmt: skip
    for stage, stage_flags in ((1, args.stage1_flags), (2, args.stage2_flags)):
        words = [*args.corpus_flags, *rest, *_words(f"--stage{stage}_flags", stage_flags), *kind_flags]
        args.corpus_arguments = _corpus_arguments(STAGES[stage], words, f"run_stage{stage}.py")
    _check_row_flags(args)
    for stage, stage_flags in ((1, args.stage1_flags), (2, args.stage2_flags)) if args.grid else ():
        words = [*args.corpus_flags, *rest, *shlex.split(stage_flags)]
        _check_grid(args, STAGES[stage], words, f"run_stage{stage}.py")
    return args


_NOT_COMPARED = {one.name for one in fields(CorpusArguments)} - {"recipe", "refit", "fold"}
_NOT_COMPARED |= {"metric_for_best_model", "greater_is_better", "max_seconds", "resume_from_checkpoint"}
_NOT_COMPARED |= {"push_to_hub", "hub_model_id", "hub_token"}


def _check_grid(args: TablesArguments, stage: type[Stage], words: list[str], script: str) -> None:
    """Check that a grid's settings are flags of both stages, and can be compared on one development set."""
    names = {pair.split("=")[0] for cell in cells(args.grid) for pair in cell}
    if differing := sorted(names & _NOT_COMPARED):
        raise UserError(
            f"--grid {differing[0]}: cannot vary: settings are compared on one development set, by one metric; "
            "give it as a flag of all runs"
        )
    if args.measure_oracle:
        raise UserError("--measure_oracle: --grid never looks at the test; drop one of the two")
    for cell in cells(args.grid):
        _corpus_arguments(stage, [*words, *(f"--{pair}" for pair in cell)], script)
        values = StageParser(stage).parse_args(["--fold", "1", *words, *(f"--{pair}" for pair in cell)])
        if values.dev == "none" or values.selection == "oracle":
            flag = "--dev none" if values.dev == "none" else "--selection oracle"
            raise UserError(f"{flag}: --grid compares settings on the development set; drop one of the two")


def _check_row_flags(args: TablesArguments) -> None:
    """Check that each of `--row_flags` begins with a row of the plan, followed by flags of its script."""
    rows = choose_rows(args.tables, args.rows, args.leave_out)
    runs = plan(rows, args.folds[:1], args.seeds[:1], args.output_dir)
    stages = {name: run.stage for run in runs for name in (run.name, *run.rows)}
    for text in args.row_flags:
        name, *words = _words("--row_flags", text) or [""]
        if name not in stages:
            raise UserError(f"--row_flags {text}: must begin with the id of a row, here one of {', '.join(stages)}")
        _corpus_arguments(STAGES[stages[name]], [*args.corpus_flags, *words], f"run_stage{stages[name]}.py")


def _words(flag: str, text: str) -> list[str]:
    """Split a string of flags as a shell does."""
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise UserError(f"{flag}: {error}; each flag is split as a shell does") from error
    if _without_token(words) != words:
        raise UserError(f"{flag}: give --hub_token to run_tables.py itself, which writes it nowhere, or set HF_TOKEN")
    return words


def _without_token(words: list[str]) -> list[str]:
    """A command line without the token for the Hub."""
    return without(words, ["hub_token"])


def without(words: list[str], names: Collection[str]) -> list[str]:
    """A command line without these flags, each of which takes one value or none."""
    kept, dropping = [], False
    for word in words:
        if word.startswith("--"):
            named = word[2:].split("=")[0].replace("-", "_") in names
            dropping = named and "=" not in word
            kept += [] if named else [word]
        else:
            kept += [] if dropping else [word]
            dropping = False
    return kept


def idle_in(settings: RowStage) -> list[str]:
    """Flags that do nothing in a row, and that its script would refuse; given for all rows, they are for others."""
    stage = SimpleNamespace(trainable=settings.trainable, scl=settings.scl, tasks=settings.tasks.split())
    return [name for names, works, _ in (ADAPTERS, SCL, AUXILIARY, CTC) if not works(stage) for name in names]


def _as_reported(words: list[str]) -> str:
    """The command of the runs for the report, with paths reduced to names: it is read on other machines."""
    words = _without_token(words)
    named = [Path(word).name if Path(word).is_absolute() or os.path.exists(word) else word for word in words]
    return shlex.join(["python", "run_tables.py", *(word for word in named if word != "--report_only")])


def _corpus_arguments(stage: type[Stage], words: list[str], script: str) -> CorpusArguments:
    """The corpus arguments among a script's flags; all other flags are checked too."""
    given = {word.removeprefix("--").split("=")[0].replace("-", "_") for word in words if word.startswith("--")}
    if taken := sorted(given & set(_SET_BY_ROWS)):
        raise UserError(f"--{taken[0]}: each row sets it; see --rows, --folds, --seeds and --output_dir")
    parser = StageParser(stage)
    try:
        values = vars(parser.parse_args(["--fold", "1", *words]))
    except UserError as error:
        raise UserError(f"{script}: {error}") from None
    return CorpusArguments(**{one.name: values[one.name] for one in fields(CorpusArguments)})


class Settings(TypedDict, total=False):
    """The content of `settings.json`."""

    corpus: str
    data_dir: list[str] | None
    encoder: str | None
    leave_out: list[str]
    measure_oracle: bool
    flags: list[str]
    stage1_flags: str
    stage2_flags: str
    adapters_flags: str
    full_flags: str
    heads_flags: str
    row_flags: list[str]


def keep_settings(args: TablesArguments) -> None:
    """Write the settings that all runs of a folder share to `settings.json`, or check them against it.

    Raises:
        UserError: the folder's runs have other settings.
    """
    settings = {name: getattr(args, name) for name in Settings.__annotations__}
    file = args.output_dir / "settings.json"
    runs = "seed*/fold*/*/args.json"
    begun = any(args.output_dir.glob(f"*/{runs}" if args.grid else runs))
    if begun and not file.is_file():
        raise UserError(f"{file}: is missing, so the settings of this folder's runs are unknown; name another folder")
    if not begun:
        return write_json(file, settings)
    # Versions without a flag ran with its default.
    before = vars(TablesArguments()) | read_json(file, Settings)
    before["flags"] = _without_token(before["flags"])  # an earlier version kept the token
    if differing := [f"--{name} {before[name]}, not {settings[name]}" for name in settings
                     if before[name] != settings[name]]:  # fmt: skip
        raise UserError(
            f"--output_dir {args.output_dir}: holds runs with other settings ({'; '.join(differing)}); "
            "name another folder"
        )
