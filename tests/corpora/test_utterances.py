"""Pins the normal form of a transcript: only the spoken words are left, in any script."""

import pytest

from ser_mtl.corpora.utterances import normalise_text


@pytest.mark.parametrize(
    ("text", "spoken"),
    [
        ("Well, THERE you are!", "well there you are"),
        ("[LAUGHTER] I don\u2019t know <unk>", "i don't know"),
        ("'cause the boys' room", "cause the boys room"),
        ("snake_case 4 you", "snake case 4 you"),
        ("Zażółć gęślą jaźń", "zażółć gęślą jaźń"),
        ("हिन्दी में बात।", "हिन्दी में बात"),
        ("தமிழ், বাংলা", "தமிழ் বাংলা"),
        ("مُحَمَّد؟", "مُحَمَّد"),
        ("你好，世界", "你好 世界"),
        ("great \u2764\ufe0f, \u263a\ufe0f", "great"),
        ("দু'টি", "দু'টি"),
        ("'tis rock ''n'' roll'", "tis rock n roll"),
        ("[BREATHING]", ""),
    ],
)
def test_only_spoken_words_are_left(text, spoken):
    assert normalise_text(text) == spoken


def test_combining_marks_are_composed():
    assert normalise_text("cafe\u0301") == "caf\u00e9"
