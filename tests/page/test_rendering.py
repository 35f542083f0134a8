"""An answer as HTML: every word of others is text, and the figure shows the answer's own numbers."""

import re
from html import unescape
from io import BytesIO
from xml.etree import ElementTree

import numpy as np
import pytest
import soundfile
from helpers.tiny import SAMPLING_RATE, tone

from ser_mtl.page import rendering

HARM = '<b onclick="x">\'${1}{{2}}</b>&amp;\x1b[2J\u202e'
P = {HARM: 0.25, "sad": 0.75}
PART = {"label": HARM, "probability": 0.75, "probabilities": P}
SEGMENTS = [
    {"start": 0.0, "end": 1.0, "emotion": PART, HARM: {"value": 0.5}, "transcript": HARM},
    {"start": 2.0, "end": 4.0, "emotion": PART, HARM: {"value": 0.5}, "transcript": ""},
]
ANSWER = {"duration": 4.0, "emotion": PART, HARM: {"value": 0.5}, "transcript": HARM, "segments": SEGMENTS}
SAMPLES = (tone(300, 4) * 32767).astype(np.int16)


def tags(html: str) -> set[str]:
    return set(re.findall(r"<(\w+)", html))


@pytest.mark.parametrize(
    "html",
    [
        rendering.answer(HARM, SAMPLES, ANSWER),
        rendering.error(HARM),
        rendering.page_foot({"emotion": [HARM], "gender": [HARM]}),
        rendering.page_head({HARM: [HARM]}, True),
    ],
    ids=["answer", "error", "foot", "head"],
)
def test_the_words_of_others_are_text(html):
    assert "b" not in tags(html) and not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", html)
    assert "<b onclick" in unescape(html) and "&amp;amp;" in html
    ElementTree.fromstring(f"<all>{html.replace(' controls ', ' ')}</all>")  # no attribute ends early


def test_the_bands_are_the_probabilities_over_time():
    bands = rendering.bands(SEGMENTS, "emotion", 4.0)
    places = [(band["x"], band["width"], band["y"], band["height"]) for band in bands]
    assert places == [(0, 250, 0, 250), (0, 250, 250, 750), (500, 500, 0, 250), (500, 500, 250, 750)]


def test_the_clip_that_plays_is_the_clip_that_was_answered():
    import base64

    samples, rate = soundfile.read(BytesIO(base64.b64decode(rendering.sound(SAMPLES))), dtype="int16")
    assert rate == SAMPLING_RATE and np.array_equal(samples, SAMPLES)


def test_silence_has_no_labels():
    html = rendering.answer("a.wav", SAMPLES, {"duration": 4.0, "speech": False, "segments": []})
    assert "no speech" in html and "rect" not in tags(html) and "button" not in tags(html)


def test_a_model_of_values_alone_is_shown():
    part = {"valence": {"value": 0.5}}
    answer = {"duration": 4.0, **part, "segments": [{"start": 0.0, "end": 4.0, **part}]}
    html = rendering.answer("a.wav", SAMPLES, answer)
    assert "0.50" in html and "rect" not in tags(html) and "button" in tags(html)


@pytest.mark.parametrize(("seconds", "words"), [(300, "5 minutes"), (90, "90 seconds"), (130, "130 seconds")])
def test_a_length_is_in_words(seconds, words):
    assert rendering.length(seconds) == words
