"""eSpeak NG as one function: text and manner of speaking in, samples out.

The library comes with the `espeakng-loader` wheel. eSpeak NG is licensed under GPL-3; this project only uses the
installed package and contains none of its code, voices or data.
"""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import espeakng_loader
import numpy as np

SAMPLE_RATE = 22_050
"""Sampling rate of the samples that `speak` returns, in hertz."""

_SYNCHRONOUS, _DO_NOT_EXIT = 2, 0x8000  # samples go to the callback; an error returns instead of ending the process
_UTF8, _SSML = 1, 0x10
_RATE, _VOLUME, _PITCH, _RANGE = 1, 2, 3, 4
_SampleCallback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)
_SYNTH_ARGUMENTS = (
    ctypes.c_char_p,  # text
    ctypes.c_size_t,  # its bytes, including the terminating zero
    ctypes.c_uint,  # start position
    ctypes.c_int,  # unit of that position
    ctypes.c_uint,  # end position, 0 for no limit
    ctypes.c_uint,  # flags
    ctypes.c_void_p,
    ctypes.c_void_p,
)


@dataclass(frozen=True)
class Manner:
    """How a text is spoken.

    Args:
        voice: language and variant, such as `en-us+f2`.
        rate: words per minute, 80 to 450.
        pitch: 0 to 99; 50 is normal for the voice.
        pitch_range: 0 to 99; 0 is a monotone, 50 is normal for the voice.
        volume: 0 to 200; 100 is full volume.
    """

    voice: str
    rate: int = 175
    pitch: int = 50
    pitch_range: int = 50
    volume: int = 100


def speak(ssml: str, manner: Manner) -> np.ndarray:
    """Speak one utterance. The same arguments give the same samples, whatever was spoken before.

    Args:
        ssml: the text; `<break time="300ms"/>` is a pause.
        manner: how to speak it.

    Returns:
        (samples at 22,050 Hz,) int16.

    Raises:
        RuntimeError: eSpeak NG did not start, or refused the voice or the text.
    """
    parameters = {_RATE: manner.rate, _VOLUME: manner.volume, _PITCH: manner.pitch, _RANGE: manner.pitch_range}
    with _fresh_library() as library:
        _check(library.espeak_SetVoiceByName(manner.voice.encode()), f"the voice {manner.voice}")
        for parameter, value in parameters.items():
            _check(library.espeak_SetParameter(parameter, value, 0), f"the manner {manner}")
        return _synthesise(library, ssml)


@contextmanager
def _fresh_library() -> Iterator[ctypes.CDLL]:
    """Load and start eSpeak NG, and unload it afterwards.

    The library keeps the state of noise, flutter and filters in static variables that starting and ending it do not
    reset. Without unloading it, an utterance would depend on those spoken before. That costs about 5 ms an utterance.
    """
    library = ctypes.CDLL(espeakng_loader.get_library_path())
    library.espeak_Synth.argtypes = _SYNTH_ARGUMENTS
    try:
        data = espeakng_loader.get_data_path()
        if library.espeak_Initialize(_SYNCHRONOUS, 0, data.encode(), _DO_NOT_EXIT) != SAMPLE_RATE:
            raise RuntimeError(f"eSpeak NG did not start from {data}; reinstall the package espeakng-loader")
        library.espeak_ng_SetRandSeed(ctypes.c_long(1))  # for the noise in breathy voices; the default is the time
        yield library
        library.espeak_Terminate()
    finally:
        dlclose = ctypes.CDLL(None).dlclose
        dlclose.argtypes = (ctypes.c_void_p,)
        dlclose(library._handle)


def _synthesise(library: ctypes.CDLL, ssml: str) -> np.ndarray:
    chunks = [np.zeros(0, np.int16)]

    @_SampleCallback
    def collect(samples, count, _events):
        if samples and count:
            chunks.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0

    library.espeak_SetSynthCallback(collect)
    text = ssml.encode()
    _check(library.espeak_Synth(text, len(text) + 1, 0, 0, 0, _UTF8 | _SSML, None, None), f"the text {ssml!r}")
    return np.concatenate(chunks)


def _check(status: int, what: str) -> None:
    if status:
        raise RuntimeError(f"eSpeak NG refused {what} (status {status})")
