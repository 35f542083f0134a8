"""What a test of a whole run needs, as small as it can be: recordings, an encoder, and a script run in this process."""

import importlib
import sys
from collections.abc import Iterable
from contextlib import redirect_stderr, redirect_stdout
from functools import partial
from io import StringIO
from itertools import product
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

import numpy as np
import pandas as pd
import soundfile
from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2Model, set_seed
from transformers.utils.logging import set_verbosity_warning

from ser_mtl import cli

SAMPLING_RATE = 16_000
PITCHES = {"angry": 440, "happy": 660, "neutral": 330, "sad": 220}
SPEAKERS = {f"{gender[0]}{number}": gender for number in range(1, 6) for gender in ("female", "male")}
ROOT = Path(__file__).resolve().parents[2]
TRAVELLING = sorted(path.name for path in ROOT.glob("*_ser_mtl.py"))
"""The files that go with every model."""
OWN = ["ser_mtl", *(name.removesuffix(".py") for name in TRAVELLING)]
"""The modules of this project that a program of a reader does not have."""


class Ended(NamedTuple):
    """How a script ended."""

    code: int
    stdout: str
    stderr: str


def tone(hertz: float, seconds: float, rate: int = SAMPLING_RATE) -> np.ndarray:
    """A sine at half of full scale, (samples,)."""
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)


def write_corpus(folder: Path, emotions: Iterable[str] = ("angry", "sad"), leave_out: Iterable[str] = ()) -> Path:
    """Write a folder corpus: every speaker says every emotion twice, once in each style; noisy tones of 0.3 to 0.5 s.

    Args:
        folder: to be made.
        emotions: among `PITCHES`.
        leave_out: columns that `metadata.csv` does not get.
    """
    random = np.random.default_rng(0)
    folder.mkdir(parents=True)
    rows = []
    for (speaker, gender), emotion, style in product(SPEAKERS.items(), emotions, ("improvised", "scripted")):
        name = f"{speaker}_{emotion}_{style}.wav"
        pitch = PITCHES[emotion] * (1.5 if gender == "female" else 1)
        samples = tone(pitch, random.uniform(0.3, 0.5))
        soundfile.write(folder / name, samples + random.normal(0, 0.02, samples.shape), SAMPLING_RATE)
        row = {"file_name": name, "emotion": emotion, "text": f"it is {emotion}", "gender": gender}
        rows.append(row | {"style": style, "speaker": speaker})
    pd.DataFrame(rows).drop(columns=list(leave_out)).to_csv(folder / "metadata.csv", index=False)
    return folder


def write_encoder(folder: Path) -> Path:
    """Save an untrained wav2vec2 of XLS-R's architecture, with two layers of width 32 and 200 frames a second."""
    config = Wav2Vec2Config(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        conv_dim=(16, 16, 16),
        conv_kernel=(10, 3, 3),
        conv_stride=(5, 4, 4),
        do_stable_layer_norm=True,
        feat_extract_norm="layer",
        num_conv_pos_embeddings=8,
        num_conv_pos_embedding_groups=2,
    )
    set_seed(0)
    Wav2Vec2Model(config).save_pretrained(folder)
    Wav2Vec2FeatureExtractor(return_attention_mask=True).save_pretrained(folder)
    return folder


def run_script(script: str, argv: Iterable[object]) -> Ended:
    """Run a script, or a command of `ser-mtl`, as its command line does, without the seconds of a new process."""
    set_verbosity_warning()  # as in a new process: what failed to load may have left it at errors
    by_script = script.startswith(("run_", "ser_mtl."))  # the latter as `python -m`
    name = f"{script.rpartition('.')[2]}.py" if by_script else "ser-mtl"
    words = [str(word) for word in argv]
    main = importlib.import_module(script).main if by_script else partial(cli.run, script, words)
    stdout, stderr = StringIO(), StringIO()
    code = 0
    with (
        patch.object(sys, "argv", [name, *words]),
        redirect_stdout(stdout),
        redirect_stderr(stderr),
    ):
        try:
            cli.command_line(main, program=name if by_script else f"ser-mtl {script}")
        except SystemExit as stop:
            code = stop.code
    return Ended(code, stdout.getvalue(), stderr.getvalue())


def run_flags(corpus: Path, output: Path, /, **more: object) -> list[object]:
    """Flags of a short run on a folder corpus; `more` comes last and wins. A list gives a flag several values."""
    flags = {"fold": 1, "corpus": "folder", "data_dir": corpus, "output_dir": output}
    flags |= {"recipe": "paper", "num_train_epochs": 2, "per_device_train_batch_size": 8} | more
    return [
        word
        for name, value in flags.items()
        for word in (f"--{name}", *(value if isinstance(value, list) else [value]))
    ]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def check_one_line(ended: Ended, script: str, *named: object) -> None:
    """Exit code 2, and on standard error nothing of ours but one line that names all of these."""
    name = f"{script}.py" if script.startswith(("run_", "pretrain")) else f"ser-mtl {script}"
    lines = [line for line in ended.stderr.splitlines() if "taken for the same people" not in line]  # a notice
    ours = [line for line in lines if line.startswith(f"{name}: ")]
    # What else is there are progress bars of steps that went well until then.
    others = [line for line in lines if line.strip() and line not in ours and "%|" not in line]
    assert (ended.code, len(ours), others) == (2, 1, []), ended.stderr
    assert ended.stderr.endswith(ours[0] + "\n")
    for name in named:
        assert str(name) in ours[0]


def check_refused(script: str, flags: list[object], *named: object) -> None:
    """The run ends as a mistake should, and its output folder is as it was before."""
    output = Path(flags[flags.index("--output_dir") + 1])
    before = contents(output) if output.is_dir() else None
    check_one_line(run_script(script, flags), script, *named)
    assert output.is_dir() == (before is not None)
    if before is not None:
        assert contents(output) == before
