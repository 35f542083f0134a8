"""A small acted corpus in IEMOCAP's folder layout, synthesised on the spot, to try the whole program out.

eSpeak NG (GPL-3), used as the installed package `espeakng-loader` only, speaks sentences written for this project. Ten
voices act five sessions; the voice's pitch, range, rate, loudness and brightness carry the emotion, never the words;
improvised speech has fillers, pauses and restarts. Faint noise, the same for all, lets loudness survive a model that
normalises its input.
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
"""Written last into a finished corpus: the seed and the size it was made with."""

_SMALLEST = 20  # utterances: one of each gender and style in each session
_NOISE = 0.001  # standard deviation; full scale is 1
_GAP = 0.5  # seconds between the turns of a dialog

_VOICES = {
    "F": ("en-us+f1", "en-us+f2", "en-us+f3", "en-us+f4", "en-us+f5"),
    "M": ("en-us+m1", "en-us+m2", "en-us+m3", "en-us+m6", "en-us+m7"),
}


@dataclass(frozen=True)
class _Emotion:
    """How an emotion is spoken (as `ser_mtl.corpora.demo.espeak.Manner` has it; `treble` in dB) and how it is rated."""

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
    """One utterance of the plan: who says what, and how."""

    session: int
    gender: str
    emotion: _Emotion
    code: str
    spoken: list[str | int]  # words, and pauses in milliseconds

    @property
    def text(self) -> str:
        words = " ".join(part for part in self.spoken if isinstance(part, str))
        return f"{words[0].upper()}{words[1:]}."

    @property
    def ssml(self) -> str:
        return " ".join(p if isinstance(p, str) else f'<break time="{p}ms"/>' for p in self.spoken)


def make_demo_corpus(folder: Path | str, seed: int = 0, utterances: int = 480) -> Path:
    """Synthesise the demo corpus, or reuse the one that is there.

    Sessions, genders, styles and emotions are balanced: exactly over all of them where `utterances` is a multiple of
    80, and each taken alone where it is a multiple of 20. The same seed gives the same bytes on the same machine.

    Args:
        folder: of the corpus to be; the folder appears when the corpus is complete.
        seed: of words, raters and manner of speaking.
        utterances: how many, at least 20, of about 2 seconds each.

    Returns:
        `folder`, which `ser_mtl.corpora.iemocap.read_iemocap(folder, check_counts=False)` reads.

    Raises:
        UserError: the folder holds something else, or a demo corpus of another seed or size.
        ValueError: fewer than 20 utterances.
    """
    if utterances < _SMALLEST:
        raise ValueError(f"utterances must be at least {_SMALLEST}, not {utterances}")
    folder = Path(folder).absolute()
    made_with = {"corpus": "demo", "seed": seed, "utterances": utterances}
    if _is_finished(folder, made_with):
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as scratch:
        partial = Path(scratch) / folder.name
        _synthesise(partial, seed, utterances)
        write_json(partial / MARKER, made_with)
        try:
            partial.rename(folder)
        except OSError:  # another process of the same run was faster
            if not _is_finished(folder, made_with):
                raise
    return folder


def _is_finished(folder: Path, made_with: dict) -> bool:
    """Whether this very corpus is there; UserError where something else is."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    try:
        found = json.loads((folder / MARKER).read_text(encoding="utf-8"))
        is_demo = found["corpus"] == made_with["corpus"]
    except (OSError, ValueError, TypeError, KeyError):
        is_demo = False
    if not is_demo:
        raise UserError(f"{folder} exists and is no demo corpus; name another folder or remove it")
    if found != made_with:
        raise UserError(
            f"{folder} holds a demo corpus of seed {found.get('seed')} and {found.get('utterances')} utterances, not "
            f"of seed {made_with['seed']} and {made_with['utterances']}; name another folder or remove it"
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
    """Filter on one thread: more gain nothing on signals this short, and lose much where other work fills the cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _plan(rng: Random, utterances: int) -> dict[str, list[_Turn]]:
    """Cast every utterance and deal them into dialogs, each of both genders where it holds more than one utterance."""
    dialogs_of_each = max(2, min(len(PLAYS), utterances // 40))  # session and style
    casts: dict[tuple[int, str, int], list[tuple[int, str]]] = {}
    for number in range(utterances):
        session, female, scripted = number % 5 + 1, number // 5 % 2, number // 10 % 2
        # Any four utterances of a session differ in emotion, and so do any four of a gender or a style.
        emotion = (((2 * female + scripted) ^ (0, 3, 1, 2)[number // 20 % 4]) + session) % 4
        dialog = (emotion + female + number // 80) % dialogs_of_each
        casts.setdefault((session, "script" if scripted else "impro", dialog), []).append((emotion, "MF"[female]))
    return {_dialog_name(*key): _cast_dialog(rng, *key, cast) for key, cast in sorted(casts.items())}


def _dialog_name(session: int, style: str, index: int) -> str:
    """As `Ses01F_script01_1`; the letter is who wears the markers in the dialog, not who speaks."""
    return f"Ses{session:02d}{'FM'[index % 2]}_{style}{index + 1:02d}{'_1' if style == 'script' else ''}"


def _cast_dialog(rng: Random, session: int, style: str, index: int, cast: list[tuple[int, str]]) -> list[_Turn]:
    """Give each of (emotion, gender), in a random order, the next line of the play or an improvised one."""
    play = PLAYS[index]
    turns = []
    for line, (emotion, gender) in enumerate(rng.sample(cast, len(cast))):
        spoken = [play[line % len(play)]] if style == "script" else improvise(rng)
        acted = _EMOTIONS[emotion]
        turns.append(_Turn(session, gender, acted, rng.choice(acted.codes), spoken))
    return turns


def _write_dialog(root: Path, dialog: str, turns: list[_Turn], rng: Random, progress: tqdm) -> None:
    """Write the audio, the labels and the transcript of one dialog."""
    session = root / f"Session{turns[0].session}"
    wavs = session / "sentences" / "wav" / dialog
    wavs.mkdir(parents=True)
    labels, transcripts = ["% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]\n"], []
    spoken_by = {"F": 0, "M": 0}
    start = _GAP
    for turn in turns:
        name = f"{dialog}_{turn.gender}{spoken_by[turn.gender]:03d}"
        spoken_by[turn.gender] += 1
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
    """Samples of one utterance at 16 kHz, float32, within full scale."""
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
    """The label line of an utterance and its raters' lines: three outside raters and the actor."""
    category = _CATEGORIES[turn.code]
    heard = [category] * 3
    if rng.random() < 0.45:  # never two, so that the majority stands
        heard[rng.randrange(3)] = turn.emotion.mistaken_for
    raters = [f"C-E{number}:\t{answer};\t()\n" for number, answer in enumerate(heard, start=2)]
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
