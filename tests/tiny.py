"""What a test of a whole run needs, as small as it can be: recordings, an encoder, and a script run in this process."""

import importlib
import sys
from collections.abc import Iterable
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from itertools import product
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

import numpy as np
import pandas as pd
import soundfile
from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2Model, set_seed

from training.run import command_line

SAMPLING_RATE = 16_000
PITCHES = {"angry": 440, "happy": 660, "neutral": 330, "sad": 220}
SPEAKERS = {f"{gender[0]}{number}": gender for number in range(1, 6) for gender in ("female", "male")}
ROOT = Path(__file__).resolve().parent.parent


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
    """Run `run_stage1` or `run_stage2` with these flags as its command line does, without the seconds of a process."""
    main = importlib.import_module(script).main
    stdout, stderr = StringIO(), StringIO()
    code = 0
    with (
        patch.object(sys, "argv", [f"{script}.py", *map(str, argv)]),
        redirect_stdout(stdout),
        redirect_stderr(stderr),
    ):
        try:
            command_line(main)
        except SystemExit as stop:
            code = stop.code
    return Ended(code, stdout.getvalue(), stderr.getvalue())
