"""A small acted corpus in IEMOCAP's folder layout, synthesised on first use, for trying out the whole program.

eSpeak NG (GPL-3, used only as the installed package `espeakng-loader`) speaks sentences written for this project. Ten
voices act five sessions. Pitch, pitch range, rate, loudness and brightness express the emotion; the words do not.
Improvised speech has fillers, pauses and restarts. All recordings have the same faint noise, so that loud and quiet
speech still differ after a model has normalised its input.
"""

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import numpy as np
import soundfile
import torch
from torchaudio.functional import treble_biquad
from torchaudio.transforms import Resample
from tqdm import tqdm

from ser_mtl.corpora.demo import espeak
from ser_mtl.corpora.demo.text import PLAYS, improvise
from ser_mtl.errors import UserError
from ser_mtl.files import write_json

SAMPLE_RATE = 16_000
MARKER = "demo.json"
"""File that marks a complete corpus. It is written last and holds the seed and the number of utterances."""

_SMALLEST = 20  # utterances: one for each gender and style in each session
_NOISE = 0.001  # standard deviation; full scale is 1
_GAP = 0.5  # seconds between the turns of a dialog

_VOICES = {
    "F": ("en-us+f1", "en-us+f2", "en-us+f3", "en-us+f4", "en-us+f5"),
    "M": ("en-us+m1", "en-us+m2", "en-us+m3", "en-us+m6", "en-us+m7"),
}


@dataclass(frozen=True)
class _Emotion:
    """How an emotion is spoken (as in `ser_mtl.corpora.demo.espeak.Manner`; `treble` in dB) and how it is rated."""

    rate: int
    pitch: int
    pitch_range: int
    volume: int
    treble: float
    attributes: tuple[float, float, float]  # mean valence, activation, dominance
    codes: tuple[str, ...]
    mistaken_for: str


_EMOTIONS = (
    _Emotion(165, 48, 45, 65, 0, (3.0, 2.5, 2.9), ("neu",), "Frustration"),
    _Emotion(185, 74, 85, 85, 2, (4.2, 3.6, 3.2), ("hap", "exc"), "Surprise"),
    _Emotion(220, 57, 75, 100, 6, (1.8, 3.9, 4.1), ("ang",), "Frustration"),
    _Emotion(135, 34, 15, 45, -6, (2.0, 2.1, 2.4), ("sad",), "Neutral"),
)
_CATEGORIES = {"neu": "Neutral", "hap": "Happiness", "exc": "Excited", "ang": "Anger", "sad": "Sadness"}


@dataclass(frozen=True)
class _Turn:
    """One planned utterance: speaker, emotion and words."""

    session: int
    gender: str
    emotion: _Emotion
    code: str
    speech: list[str | int]  # words, and pauses in milliseconds

    @property
    def text(self) -> str:
        words = " ".join(part for part in self.speech if isinstance(part, str))
        return f"{words[0].upper()}{words[1:]}."

    @property
    def ssml(self) -> str:
        return " ".join(part if isinstance(part, str) else f'<break time="{part}ms"/>' for part in self.speech)


def make_demo_corpus(folder: Path | str, seed: int = 0, utterances: int = 480) -> Path:
    """Synthesise the demo corpus, or reuse it if it is already there.

    Sessions, genders, styles and emotions are balanced: in all combinations if `utterances` is a multiple of 80, and
    each by itself if it is a multiple of 20. The same seed gives the same bytes on the same machine.

    Args:
        folder: where the corpus is written. It appears only when the corpus is complete.
        seed: of the words, the raters and the manner of speaking.
        utterances: how many, at least 20; each takes about 2 seconds.

    Returns:
        `folder`, to be read by `ser_mtl.corpora.iemocap.read_iemocap(folder, check_counts=False)`.

    Raises:
        UserError: the folder holds something else, or a demo corpus with another seed or size.
        ValueError: fewer than 20 utterances.
    """
    if utterances < _SMALLEST:
        raise ValueError(f"utterances must be at least {_SMALLEST}, not {utterances}")
    folder = Path(folder).absolute()
    settings = {"corpus": "demo", "seed": seed, "utterances": utterances}
    if _is_finished(folder, settings):
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as scratch:
        partial = Path(scratch) / folder.name
        _synthesise(partial, seed, utterances)
        write_json(partial / MARKER, settings)
        try:
            partial.rename(folder)
        except OSError:  # another process of the same run finished first
            if not _is_finished(folder, settings):
                raise
    return folder


def _is_finished(folder: Path, settings: dict) -> bool:
    """Whether the folder holds exactly this corpus.

    Raises:
        UserError: it holds something else.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    try:
        marker = json.loads((folder / MARKER).read_text(encoding="utf-8"))
        is_demo = marker["corpus"] == settings["corpus"]
    except (OSError, ValueError, TypeError, KeyError):
        is_demo = False
    if not is_demo:
        raise UserError(f"{folder}: exists and is not a demo corpus; name another folder or remove it")
    if marker != settings:
        raise UserError(
            f"{folder}: holds a demo corpus of seed {marker.get('seed')} and {marker.get('utterances')} utterances, "
            f"not of seed {settings['seed']} and {settings['utterances']}; name another folder or remove it"
        )
    return True


def _synthesise(root: Path, seed: int, utterances: int) -> None:
    rng = Random(seed)
    dialogs = _plan(rng, utterances)
    with _one_thread(), tqdm(total=utterances, desc="Synthesising the demo corpus", unit="utterance") as progress:
        for dialog, turns in dialogs.items():
            _write_dialog(root, dialog, turns, rng, progress)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Limit torch to one thread: more do not help on signals this short, and are slow on busy cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _plan(rng: Random, utterances: int) -> dict[str, list[_Turn]]:
    """Give every utterance a session, gender, style and emotion, and sort them into dialogs of both genders."""
    dialogs = max(2, min(len(PLAYS), utterances // 40))  # in each session and style
    casts: dict[tuple[int, str, int], list[tuple[int, str]]] = {}
    for number in range(utterances):
        session, female, scripted = number % 5 + 1, number // 5 % 2, number // 10 % 2
        # Four successive utterances of a session, a gender or a style have four different emotions.
        emotion = (((2 * female + scripted) ^ (0, 3, 1, 2)[number // 20 % 4]) + session) % 4
        dialog = (emotion + female + number // 80) % dialogs
        casts.setdefault((session, "script" if scripted else "impro", dialog), []).append((emotion, "MF"[female]))
    return {_dialog_name(*key): _cast_dialog(rng, *key, cast) for key, cast in sorted(casts.items())}


def _dialog_name(session: int, style: str, index: int) -> str:
    """A name like `Ses01F_script01_1`. The letter is the wearer of the markers, not the speaker."""
    return f"Ses{session:02d}{'FM'[index % 2]}_{style}{index + 1:02d}{'_1' if style == 'script' else ''}"


def _cast_dialog(rng: Random, session: int, style: str, index: int, cast: list[tuple[int, str]]) -> list[_Turn]:
    """Shuffle the (emotion, gender) pairs and give each the next line of the play, or an improvised one."""
    play = PLAYS[index]
    turns = []
    for line, (emotion, gender) in enumerate(rng.sample(cast, len(cast))):
        speech: list[str | int] = [play[line % len(play)]] if style == "script" else improvise(rng)
        acted = _EMOTIONS[emotion]
        turns.append(_Turn(session, gender, acted, rng.choice(acted.codes), speech))
    return turns


def _write_dialog(root: Path, dialog: str, turns: list[_Turn], rng: Random, progress: tqdm) -> None:
    """Write the audio, the labels and the transcripts of one dialog."""
    session = root / f"Session{turns[0].session}"
    wavs = session / "sentences" / "wav" / dialog
    wavs.mkdir(parents=True)
    labels, transcripts = ["% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]\n"], []
    next_number = {"F": 0, "M": 0}
    start = _GAP
    for turn in turns:
        name = f"{dialog}_{turn.gender}{next_number[turn.gender]:03d}"
        next_number[turn.gender] += 1
        samples = _speak(turn, rng)
        soundfile.write(wavs / f"{name}.wav", samples, SAMPLE_RATE, subtype="PCM_16")
        end = start + len(samples) / SAMPLE_RATE
        labels += _labels(turn, name, start, end, rng)
        transcripts.append(f"{name} [{start:08.4f}-{end:08.4f}]: {turn.text}\n")
        start = end + _GAP
        progress.update()
    for kind, lines in (("EmoEvaluation", labels), ("transcriptions", transcripts)):
        path = session / "dialog" / kind / f"{dialog}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(lines), encoding="utf-8")


def _speak(turn: _Turn, rng: Random) -> np.ndarray:
    """Synthesise one utterance: (samples at 16 kHz,) float32, from -1 to 1."""
    emotion = turn.emotion
    manner = espeak.Manner(
        voice=_VOICES[turn.gender][turn.session - 1],
        rate=round(emotion.rate * rng.gauss(1, 0.07)),
        pitch=_within(rng.gauss(emotion.pitch, 5), 0, 99),
        pitch_range=_within(rng.gauss(emotion.pitch_range, 8), 0, 99),
        volume=round(emotion.volume * rng.gauss(1, 0.07)),
    )
    speech = torch.from_numpy(espeak.speak(turn.ssml, manner)).float() / 2**16
    speech = _resampler()(speech)
    speech = treble_biquad(speech, SAMPLE_RATE, gain=rng.gauss(emotion.treble, 1.5), central_freq=2000)
    before, after = (round(rng.uniform(0.05, 0.15) * SAMPLE_RATE) for _ in range(2))
    samples = np.pad(speech.numpy(), (before, after))
    noise = np.random.default_rng(rng.getrandbits(32)).normal(0, _NOISE, len(samples))
    return np.clip(samples + noise, -1, 1).astype(np.float32)


@cache
def _resampler() -> Resample:
    return Resample(espeak.SAMPLE_RATE, SAMPLE_RATE)


def _labels(turn: _Turn, name: str, start: float, end: float, rng: Random) -> list[str]:
    """The label line of an utterance and the lines of its raters: three outside raters and the actor."""
    category = _CATEGORIES[turn.code]
    answers = [category] * 3
    if rng.random() < 0.45:  # at most one rater disagrees, so that the majority is right
        answers[rng.randrange(3)] = turn.emotion.mistaken_for
    raters = [f"C-E{number}:\t{answer};\t()\n" for number, answer in enumerate(answers, start=2)]
    raters.append(f"C-{turn.gender}1:\t{category};\t()\n")
    attributes = [
        [_within(rng.gauss(mean, 0.5), 1, 5) for mean in turn.emotion.attributes] for _outside_rater in range(2)
    ]
    for number, (val, act, dom) in enumerate(attributes, start=3):
        raters.append(f"A-E{number}:\tval {val}; act {act}; dom  {dom};\t()\n")
    means = ", ".join(f"{math.fsum(values) / 2:.4f}" for values in zip(*attributes, strict=True))
    return [f"\n[{start:.4f} - {end:.4f}]\t{name}\t{turn.code}\t[{means}]\n", *raters]


def _within(value: float, low: int, high: int) -> int:
    return min(max(round(value), low), high)
