"""The entry points, each with its inputs and with how one of them is tried.

A target is a strategy of hypothesis and a function of an input and an empty folder, which raises if the contract of
`sandbox` is broken. Inputs are plain values: one that was found can be kept in `findings.py` as it is printed.
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from hypothesis import strategies as st

from fuzz.sandbox import Broken, check_nothing_left, check_refused_or, names_in, run_program
from fuzz.world import World, linked, places_in
from modeling_ser_mtl import SerMtlConfig
from ser_mtl import cli

# ------------------------------------------------------------------------------------------------- odd values

TEXT = st.text(st.characters(codec="utf-8"), max_size=12) | st.sampled_from(
    [
        "",
        " ",
        "\x1b[31m",
        "a\nb",
        "\u202e",
        "../..",
        "/",
        "x" * 5000,
        "=1+1",
        "nan",
        "null",
        "angry",
        "0",
        "-1",
        "é" * 300,
    ]
)
NUMBERS = st.integers(-3, 300) | st.sampled_from(
    [2**31, -(2**63), 10**40, 1e308, -0.0, 0.5, float("nan"), float("inf")]
)
SCALARS = st.none() | st.booleans() | NUMBERS | TEXT
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(TEXT | st.sampled_from(["all", "emotion", "n"]), inner, max_size=3)
    ),
    max_leaves=6,
)
CONTENTS = (
    st.sampled_from(
        [
            "",
            "{}",
            "null",
            "[]",
            '"text"',
            "3",
            "NaN",
            "{",
            "[" * 2000,
            '{"a": 1e999}',
            '["\\ud800"]',
            "\ufeff{}",
            "{}\n{}",
            "\x00",
        ]
    )
    | TEXT
    | VALUES.map(json.dumps)
)


def _edits(places: list[tuple]) -> st.SearchStrategy:
    """Edits of a JSON file: another content, another value at a place, an entry that is gone, an end that is gone."""
    where = st.sampled_from(places)
    return st.one_of(
        st.tuples(st.just("content"), CONTENTS),
        st.tuples(st.just("value"), where, VALUES),
        st.tuples(st.just("value"), where, st.sampled_from([None, {}, [], "", 0, True, "text", float("nan")])),
        st.tuples(st.just("gone"), where),
        st.tuples(st.just("cut"), st.integers(0, 3000)),
    )


def edited(text: str, edit: tuple) -> str:
    """The text of a JSON file, edited."""
    kind, *more = edit
    if kind == "content":
        return more[0]
    if kind == "cut":
        return text[: more[0]]
    lines = text.splitlines()
    rows = len(lines) > 1 and lines[0].startswith("{") and lines[0].endswith("}")  # of JSON lines
    content = [json.loads(line) for line in lines] if rows else json.loads(text)
    place = more[0]
    if not place:
        content = more[1] if kind == "value" else {}
    else:
        inner = content
        for key in place[:-1]:
            inner = inner[key]
        if kind == "value":
            inner[place[-1]] = more[1]
        else:
            del inner[place[-1]]
    if rows and isinstance(content, list):
        return "".join(json.dumps(row) + "\n" for row in content)
    return json.dumps(content)


@dataclass(frozen=True)
class Target:
    """An entry point."""

    name: str
    inputs: st.SearchStrategy
    work: Callable[[Any, Path], None]
    share: int
    """Its part of all inputs, relative to the others."""


# ----------------------------------------------------------------------------------------------- files of a run

_OF_MODEL = ("config.json", "vocab.json", "tokenizer_config.json", "processor_config.json")
_OF_RUN = ("results.json", "args.json", "split.json", "predictions.jsonl", "history.json")


def _damaged(source: Path, file: str, edit: tuple, folder: Path) -> Path:
    """A copy of a run in which one file is edited."""
    run = linked(source, folder / "run")
    text = (run / file).read_text()
    (run / file).unlink()
    (run / file).write_bytes(edited(text, edit).encode("utf-8", "surrogatepass"))
    return run


def _json_files(world: World, source: Path, files: tuple[str, ...]) -> st.SearchStrategy:
    def of(file: str) -> st.SearchStrategy:
        text = (source / file).read_text()
        content = [json.loads(line) for line in text.splitlines()] if file.endswith("l") else json.loads(text)
        return st.tuples(st.just(file), _edits(list(places_in(content))))

    return st.one_of([of(file) for file in files])


def _verb(verb: str, *words: object, lines: int = 1) -> int:
    return run_program(partial(cli.run, verb, [str(word) for word in words]), f"ser-mtl {verb}", lines)


def predict_with(world: World, source: Path, item: tuple, folder: Path) -> None:
    """`ser-mtl predict` with a model whose files are damaged."""
    run, output = _damaged(source, *item, folder), folder / "answers.json"
    before = names_in(folder)
    recording = world.corpus / "f1_angry_improvised.wav"
    code = _verb("predict", recording, "--model", run, "--format", "json", "--output", output)
    check_nothing_left(folder, before, code)


def export_run(world: World, source: Path, item: tuple, folder: Path) -> None:
    """`ser-mtl export` of a damaged run."""
    run = _damaged(source, *item, folder)
    before = names_in(folder)
    form = "merged" if source == world.stage2 else "wav2vec2"
    check_nothing_left(folder, before, _verb("export", run, "--to", form, "--output_dir", folder / "exported"))


def contents_of_run(world: World, source: Path, item: tuple, folder: Path) -> None:
    """What `ser-mtl publish` sends of a damaged run, up to the Hub."""
    from ser_mtl.hub.base import Base
    from ser_mtl.hub.contents import files_to_publish
    from ser_mtl.hub.options import Options

    run = _damaged(source, *item, folder)
    base = Base("ada/ser", "0" * 40, of_stage1=True) if source == world.stage2 else None
    before = names_in(folder)
    code = run_program(lambda: files_to_publish(run, "ada/made", base, Options(public=True)))
    check_nothing_left(folder, before, code)


def start_stage2(world: World, source: Path, item: tuple, folder: Path) -> None:
    """The start of stage 2 from a damaged stage 1."""
    from ser_mtl.training.heard import check_never_heard
    from ser_mtl.training.method import Earlier
    from ser_mtl.training.stage import Stage2
    from ser_mtl.training.stage2_start import stage2_start

    run = _damaged(source, *item, folder)
    before = names_in(folder)
    labels = {"emotion": ["angry", "sad"], "gender": ["female", "male"], "style": ["improvised", "scripted"]}

    def main() -> None:
        stage2_start(Stage2(stage1=str(run)), labels)
        check_never_heard(Earlier("--stage1", str(run)), _parts(world))

    check_nothing_left(folder, before, run_program(main))


def start_on_encoder(world: World, source: Path, item: tuple, folder: Path) -> None:
    """The start of stage 1 on an encoder with a damaged config."""
    from ser_mtl.training.stage import Stage1
    from ser_mtl.training.stage1_start import stage1_start

    encoder = _damaged(source, *item, folder)
    before = names_in(folder)
    labels = {"emotion": ["angry", "sad"]}
    code = run_program(lambda: stage1_start(Stage1(encoder=str(encoder)), labels, _parts(world)))
    check_nothing_left(folder, before, code)


@cache
def _parts(world: World) -> Any:
    from ser_mtl.corpora import load_corpus
    from ser_mtl.corpora.folds import split

    return split(load_corpus("folder", world.corpus), fold=1, dev="dialog")


def show_again(world: World, source: Path, item: tuple, folder: Path) -> None:
    """The same command once more on a run that is finished, and whose files are damaged."""
    run = _damaged(source, *item, folder)
    before = names_in(folder)
    code = run_program(lambda: _begin(1, [*_flags(world, run), "--encoder", str(world.encoder)]))
    check_nothing_left(folder, before, code)


def settings_file(world: World, source: Path, item: tuple, folder: Path) -> None:
    """A training that takes its flags from a damaged args.json."""
    run = _damaged(source, *item, folder)
    before = names_in(folder)
    words = [str(run / "args.json"), "--fold", "1", "--output_dir", str(folder / "out")]
    check_nothing_left(folder, before, run_program(lambda: _begin(1, words)))


def _flags(world: World, output: Path) -> list[str]:
    from helpers.tiny import run_flags

    return [str(word) for word in run_flags(world.corpus, output)]


def _begin(number: int, argv: list[str], corpus: bool = False) -> None:
    """What a script does before it trains; with the corpus, all but the model."""
    from ser_mtl.corpora.folds import split
    from ser_mtl.recipe import parse_settings, read_corpus, record_of, show_classes
    from ser_mtl.training.outcome import show
    from ser_mtl.training.run_folder import check_run_folder
    from ser_mtl.training.stage import Stage1, Stage2

    settings = parse_settings(Stage1 if number == 1 else Stage2, argv)
    if results := check_run_folder(Path(settings.args.output_dir), record_of(settings)):
        show(results, settings.args)
    elif corpus:
        utterances = read_corpus(settings.corpus, settings.args)
        parts = split(utterances, settings.corpus.fold, settings.corpus.dev)
        show_classes(parts, settings.stage, settings.args)


def resume(world: World, item: tuple, folder: Path) -> None:
    """A look at a damaged checkpoint."""
    from transformers import TrainerState

    from ser_mtl.files import read_json
    from ser_mtl.training.checkpoints import STATE, check_whole
    from ser_mtl.training.resuming import Losses

    file, edit = item
    checkpoint = folder / "checkpoint-6"
    checkpoint.mkdir()
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth", "model.safetensors"):
        (checkpoint / name).write_bytes(b"x")
    for name, text in CHECKPOINT.items():
        (checkpoint / name).write_bytes((edited(text, edit) if name == file else text).encode("utf-8", "surrogatepass"))

    def main() -> None:
        check_whole(checkpoint)
        read_json(checkpoint / "losses.json", list[Losses])
        TrainerState.load_from_json(str(checkpoint / STATE))

    run_program(main)


CHECKPOINT = {
    "trainer_state.json": json.dumps(
        {
            "epoch": 1.0, "global_step": 6, "max_steps": 12, "logging_steps": 6, "eval_steps": 6, "save_steps": 6,
            "train_batch_size": 8, "num_train_epochs": 2, "num_input_tokens_seen": 0, "total_flos": 0.0,
            "log_history": [{"epoch": 1.0, "step": 6, "loss": 0.7, "eval_emotion_ua": 0.5}], "best_metric": 0.5,
            "best_global_step": 6, "best_model_checkpoint": None, "is_local_process_zero": True,
            "is_world_process_zero": True, "is_hyper_param_search": False, "trial_name": None, "trial_params": None,
            "stateful_callbacks": {"TrainerControl": {"args": {}, "attributes": {"should_save": True}}},
        }
    ),
    "losses.json": json.dumps(
        [{"trained": 4.2, "since_log": 0.0, "last_log": 6, "sums": {"emotion": 1.5}, "first_update_summed": 6}]
    ),
    "files.json": json.dumps({"losses.json": "00", "optimizer.pt": "00"}),
}  # fmt: skip


def tables(world: World, item: tuple, folder: Path) -> None:
    """The plan and the tables of a report over damaged runs; its figures as well if the input says so."""
    from ser_mtl.evaluation.intervals import counts
    from ser_mtl.tables.arguments import keep_settings, parse_arguments
    from ser_mtl.tables.finished import finished_rows, finished_runs
    from ser_mtl.tables.plan import choose_rows, plan, plan_table
    from ser_mtl.tables.report import _tables, about, read_baselines, write_report

    file, edit, drawn = item
    output = _damaged(world.tables, file, edit, folder)
    before = names_in(folder)
    argv = ["--rows", "t1-full-ser", "--folds", "1", "2", "--output_dir", str(output), "--corpus", "demo"]

    def main() -> None:
        args = parse_arguments(argv)
        runs = plan(choose_rows(args.tables, args.rows, []), args.folds, args.seeds, args.output_dir)
        if file == "settings.json":
            return keep_settings(args)
        print(plan_table(runs, 1))
        if drawn:
            return write_report(args.output_dir, runs, args.command)
        rows = finished_rows(runs)
        _tables(rows, {row.id: counts(row.predictions()) for row in rows}, read_baselines(output / "baselines.json"))
        about(rows, finished_runs(runs))

    check_nothing_left(folder, before, run_program(main))


# ------------------------------------------------------------------------------------------------------ corpora

_COLUMNS = ["file_name", "emotion", "text", "gender", "style", "speaker", "dialog", "fold"]
CELLS = TEXT | st.sampled_from(
    ["f1_angry_improvised.wav", "m2_sad_scripted.wav", "angry", "female", "1", "5", "f1", '"', "a,b", "\t", ";"]
)


def metadata(world: World, text: str, folder: Path) -> None:
    """`ser-mtl corpus` on a folder with another metadata.csv."""
    corpus = linked(world.corpus, folder / "corpus")
    (corpus / "metadata.csv").unlink()
    (corpus / "metadata.csv").write_bytes(text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text)
    before = names_in(folder)
    words = ("corpus", corpus, "--fold", "1", "--write", folder / "new/metadata.csv")
    check_nothing_left(folder, before, _verb(*words, lines=5))  # notices as well


def _metadata(world: World) -> st.SearchStrategy:
    good = (world.corpus / "metadata.csv").read_text().splitlines()
    rows = st.lists(st.lists(CELLS, max_size=9).map(",".join) | st.sampled_from(good[1:]), max_size=8)
    heads = st.lists(st.sampled_from(_COLUMNS) | CELLS, max_size=9).map(",".join) | st.just(good[0])

    def changed(change: tuple) -> str:
        row, column, cell = change
        cells = [line.split(",") for line in good]
        cells[row % len(good)][column % len(cells[0])] = cell
        return "\n".join(map(",".join, cells))

    one_cell = st.tuples(st.integers(0, 40), st.integers(0, 5), CELLS).map(changed)
    whole = st.tuples(heads, rows).map(lambda parts: "\n".join([parts[0], *parts[1]]))
    separated = st.sampled_from([";", "\t", "|", ", "]).map(lambda mark: "\n".join(good).replace(",", mark))
    return st.one_of(
        one_cell,
        whole,
        separated,
        st.binary(max_size=60),
        st.integers(0, 900).map("\n".join(good).__getitem__ and (lambda n: "\n".join(good)[:n])),
    )


_DIALOG = "Ses01F_impro01"
LINES = (
    st.sampled_from(
        [
            "[6.2900 - 8.2300]\tSes01F_impro01_F000\tneu\t[2.5000, 2.5000, 2.5000]",
            "[6.2.5 - 7.5]\tSes01F_impro01_F000\tneu\t[1, 2, 3]",
            "[1 - 2]\tSes01F_impro01_F001\tang\t[3.000 0, 1, 2]",
            "C-E2:\tNeutral;\t()",
            "C-E4:\tAnger; Frustration;\t(tense (or tired))",
            "A-E3:\tval 3; act 2; dom  ;\t()",
            "A-M1:\tval x; act 3; dom  5;\t()",
            "Ses01F_impro01_F000 [006.2500-007.5000]: Words.",
            "% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]",
            "",
            "[1 - 2]\t../../x\tneu\t[1, 2, 3]",
        ]
    )
    | TEXT
    | st.tuples(TEXT, NUMBERS, TEXT).map(
        lambda p: f"[{p[1]} - {p[1]}]\tSes01F_impro01_{p[0]}\t{p[2]}\t[{p[1]}, {p[1]}, {p[1]}]"
    )
)


def iemocap(world: World, item: tuple, folder: Path) -> None:
    """`ser-mtl corpus --corpus iemocap` on a tree with another label file or transcript, or none."""
    kind, text = item
    place = world.iemocap / "Session1/dialog" / kind / f"{_DIALOG}.txt"
    tree = folder / "tree"
    for session in range(1, 6):
        (tree / f"Session{session}").parent.mkdir(parents=True, exist_ok=True)
        if session > 1:
            (tree / f"Session{session}").symlink_to(world.iemocap / f"Session{session}")
    linked(world.iemocap / "Session1", tree / "Session1")
    changed = tree / place.relative_to(world.iemocap)
    changed.unlink()
    if text == "folder":
        changed.mkdir()
    elif text == "link":
        changed.symlink_to("nowhere")
    elif text is not None:
        changed.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"))
    before = names_in(folder)
    check_nothing_left(folder, before, _verb("corpus", tree, "--corpus", "iemocap", "--no_check_counts"))


# -------------------------------------------------------------------------------------------------------- audio


@cache
def _recordings() -> dict[str, bytes]:
    """A short recording in each format that soundfile writes here."""
    made = {}
    samples = 0.4 * np.sin(np.arange(2400) / 7)
    for form, suffix in (
        ("WAV", "wav"),
        ("FLAC", "flac"),
        ("OGG", "ogg"),
        ("MP3", "mp3"),
        ("AIFF", "aiff"),
        ("AU", "au"),
        ("CAF", "caf"),
        ("W64", "w64"),
    ):
        file = BytesIO()
        soundfile.write(file, samples, 16000, format=form)
        made[suffix] = file.getvalue()
    return made


def audio(world: World, item: tuple, folder: Path) -> None:
    """`read_audio`, then the recognizer, on the bytes of a file."""
    suffix, content = item
    file = folder / f"a.{suffix}"
    file.write_bytes(content)
    before = names_in(folder)
    code = run_program(lambda: print(recognizer(world)(file)))
    check_nothing_left(folder, before, code)


@cache
def recognizer(world: World) -> Any:
    """The model of stage 2, loaded once."""
    import ser_mtl

    return ser_mtl.load(str(world.stage2))


def _audio() -> st.SearchStrategy:
    def damaged(args: tuple) -> tuple[str, bytes]:
        suffix, other, flips, cut, more = args
        content = bytearray(_recordings()[suffix])
        for place, value in flips:
            content[place % min(len(content), 200)] = value
        return (other or suffix), bytes(content[: len(content) * cut // 100]) + more

    suffixes = st.sampled_from(sorted(_recordings()))
    flips = st.lists(st.tuples(st.integers(0, 199), st.integers(0, 255)), max_size=6)
    others = st.sampled_from([None, None, None, "wav", "mp3", "m4a", "txt"])
    built = st.tuples(suffixes, others, flips, st.sampled_from([100, 100, 100, 50, 10, 1, 0]), st.binary(max_size=8))
    return built.map(damaged) | st.tuples(suffixes, st.binary(max_size=200))


ARRAYS = st.tuples(
    st.sampled_from(["float32", "float64", "float16", "int16", "int32", "uint8", "bool", "complex64", "object", "U3"]),
    st.sampled_from([(), (0,), (1,), (800,), (1, 800), (800, 1), (2, 800), (800, 2), (8, 70000), (3, 4, 5), (1, 0)]),
    st.sampled_from(["zeros", "ones", "large", "nan", "inf", "noise"]),
)  # fmt: skip
RATES = st.sampled_from(
    [
        16000,
        8000,
        44100,
        48000,
        11025,
        16000.0,
        "16000",
        None,
        True,
        0,
        -1,
        1,
        999,
        10**12,
        float("nan"),
        [16000],
        15999.5,
    ]
)


def recordings(world: World, item: tuple, folder: Path) -> None:
    """The recognizer on whatever is passed to it from Python."""
    kind, *more = item
    check_refused_or(lambda: recognizer(world)(_recording(kind, *more)))


def _recording(kind: str, *more: Any) -> Any:
    if kind == "bytes":
        return BytesIO(more[0])
    if kind == "value":
        return more[0]
    (dtype, shape, fill), rate = more
    array = {"zeros": np.zeros, "ones": np.ones}.get(fill, np.ones)(shape)
    if fill not in ("zeros", "ones"):
        array = array * {"large": 1e9, "nan": np.nan, "inf": np.inf, "noise": 0.3}[fill]
    with np.errstate(all="ignore"):
        array = np.asarray(array).astype(dtype)  # a product of shape () is no array
    if kind == "list":
        array = array.tolist()
    elif kind == "tensor" and array.dtype.kind in "fiub":
        array = torch.as_tensor(array)
    return (array, rate)


# -------------------------------------------------------------------------------------------------------- flags


def _flag_words() -> st.SearchStrategy:
    from ser_mtl.recipe import StageParser
    from ser_mtl.training.stage import Stage1

    names = sorted(action.option_strings[0] for action in StageParser(Stage1)._actions if action.option_strings)
    names = [name for name in names if name not in ("--help", "--help_all", "-h", "--output_dir")]
    values = (
        st.sampled_from(
            [
                "",
                "9" * 30,
                '{"a": 1}',
                "\x1b[2J",
                "0",
                "-1",
                "1",
                "0.5",
                "1e-3",
                "nan",
                "inf",
                "-inf",
                "1e999",
                "true",
                "none",
            ]
        )
        | st.sampled_from(
            [
                "1000000000",
                "auto",
                "no",
                "epoch",
                "steps",
                "{}",
                "[]",
                "/proc/x",
                "/dev/null",
                "x/y",
                "emotion",
                "adapters",
            ]
        )
        | TEXT.filter(lambda text: "\x00" not in text)
    )
    flag = st.tuples(st.sampled_from(names), st.lists(values, max_size=2)).map(lambda pair: [pair[0], *pair[1]])
    return st.lists(flag | st.tuples(values).map(list), min_size=1, max_size=3).map(
        lambda flags: [word for flag in flags for word in flag]
    )


def stage_flags(world: World, words: list[str], folder: Path) -> None:
    """Flags of run_stage1.py, up to the model."""
    before = names_in(folder)
    base = [*_flags(world, folder / "out"), "--encoder", str(world.encoder)]
    check_nothing_left(folder, before, run_program(lambda: _begin(1, [*base, *words], corpus=True)))


def verbs(world: World, words: list[str], folder: Path) -> None:
    """Words after `ser-mtl`."""
    words = [word.replace("RUN", str(world.stage2)).replace("OUT", str(folder / "out")) for word in words]
    words = [word.replace("CORPUS", str(world.corpus)) for word in words]
    before = names_in(folder)
    verb = words[0] if words and words[0] in cli.VERBS else None
    program = f"ser-mtl {verb}" if verb else "ser-mtl"
    rest = words[1:]
    try:
        code = run_program(partial(cli.run, words[0] if words else "", rest), program, lines=12)
    finally:
        if (world.stage2 / "exported").exists():
            shutil.rmtree(world.stage2 / "exported")
    check_nothing_left(folder, before, code)


def _verb_words() -> st.SearchStrategy:
    flags = [
        *[
            "--model",
            "RUN",
            "--format",
            "json",
            "csv",
            "text",
            "--output",
            "OUT",
            "OUT/a/b",
            "--raw",
            "--no_transcript",
            "CORPUS",
            "--corpus",
            "folder",
            "iemocap",
        ],
        *[
            "demo.toml",
            "--fold",
            "1",
            "9",
            "--dev",
            "session",
            "none",
            "--write",
            "--to",
            "merged",
            "--output_dir",
            "--repo_id",
            "ada/ser",
            "a/b/c",
        ],
        *[
            "--public",
            "--merge",
            "--all_folds",
            "--no_check_counts",
            "RUN/results.json",
            "CORPUS/f1_angry_improvised.wav",
        ],
        *["/proc/self/mem", "/dev/null", "nowhere", "nowhere/x", "--distinct_speakers"],
        "x" * 300,
    ]
    # A search of the whole file system takes the time that it takes.
    word = st.sampled_from(flags) | TEXT.filter(lambda text: "\x00" not in text and text not in ("/", "../.."))
    verb = st.sampled_from([*cli.VERBS, "corpus", "predict", "export", "nothing"]).filter(lambda verb: verb != "page")
    return st.tuples(verb, st.lists(word, max_size=6)).map(lambda pair: [pair[0], *pair[1]])


# ------------------------------------------------------------------------------------------------------- config


def config(world: World, values: dict, folder: Path) -> None:
    """`SerMtlConfig` of odd values: an answer, or a ValueError of one line."""
    check_refused_or(lambda: SerMtlConfig(**values))


def _config() -> st.SearchStrategy:
    names = [name for name in SerMtlConfig.__annotations__ if name != "sub_configs"]
    own = st.dictionaries(st.sampled_from(names), VALUES, min_size=1, max_size=3)
    encoder = st.dictionaries(
        st.sampled_from(["model_type", "hidden_size", "conv_dim", "num_hidden_layers"]), VALUES | st.just("wav2vec2")
    )
    return own | encoder.map(lambda values: {"encoder_config": values})


# ---------------------------------------------------------------------------------------------------------- all


def targets(world: World) -> dict[str, Target]:
    """All entry points, by name."""
    stages = {"stage1": world.stage1, "stage2": world.stage2}
    of_adapters = (*_OF_MODEL, "adapter_config.json")
    made: list[Target] = []

    def add(name: str, inputs: st.SearchStrategy, work: Callable, share: int) -> None:
        made.append(Target(name, inputs, partial(work, world), share))

    for stage, source in stages.items():
        files = of_adapters if stage == "stage2" else _OF_MODEL
        for name, work, read, share in (
            (f"predict {stage}", predict_with, files, 5),
            (f"export {stage}", export_run, (*files, "results.json"), 3),
            (f"publish {stage}", contents_of_run, (*files, *_OF_RUN), 9),
        ):
            inputs = _json_files(world, source, read)
            made.append(Target(name, inputs, partial(work, world, source), share))
    first = world.stage1
    for name, work, source, read, share in (
        ("stage 2", start_stage2, first, (*_OF_MODEL, *_OF_RUN[:3]), 5),
        ("encoder", start_on_encoder, world.encoder, ("config.json", "preprocessor_config.json"), 4),
        ("same run", show_again, first, ("args.json", "results.json"), 7),
        ("args.json", settings_file, first, ("args.json",), 8),
    ):
        made.append(Target(name, _json_files(world, source, read), partial(work, world, source), share))
    run = "seed0/fold1/t1-full-ser"
    of_tables = tuple(f"{run}/{name}" for name in ("results.json", "args.json", "predictions.jsonl", "history.json"))
    read = _json_files(world, world.tables, (*of_tables, f"{run}/gradient_cosines.json", "baselines.json"))
    add("report", st.tuples(read, st.integers(0, 30)).map(lambda pair: (*pair[0], pair[1] == 7)), tables, 12)
    checkpoint = [
        st.tuples(st.just(name), _edits(list(places_in(json.loads(text))))) for name, text in CHECKPOINT.items()
    ]
    add("checkpoint", st.one_of(checkpoint), resume, 8)
    add("metadata.csv", _metadata(world), metadata, 9)
    texts = (
        st.lists(LINES, max_size=6).map("\n".join) | st.sampled_from([None, "folder", "link"]) | st.binary(max_size=80)
    )
    add("IEMOCAP", st.tuples(st.sampled_from(["EmoEvaluation", "transcriptions"]), texts), iemocap, 2)
    add("audio", _audio(), audio, 14)
    arrays = st.tuples(st.sampled_from(["array", "list", "tensor"]), ARRAYS, RATES)
    others = st.tuples(st.just("bytes"), st.binary(max_size=60)) | st.tuples(
        st.just("value"), VALUES.filter(lambda v: not isinstance(v, int) or v > 2)
    )
    add("recognizer", arrays | others, recordings, 10)
    add("flags", _flag_words(), stage_flags, 12)
    add("verbs", _verb_words(), verbs, 10)
    add("SerMtlConfig", _config(), config, 12)
    return {target.name: target for target in made}


__all__ = ["Broken", "Target", "targets"]
