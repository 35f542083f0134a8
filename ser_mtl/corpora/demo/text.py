"""The words of the demo corpus: short plays that every session acts, and a grammar for improvised speech.

All of it was written for this project. The words do not depend on the emotion; only the voice does.
"""

from random import Random

PLAYS = (
    (
        "Where did you put the keys",
        "I left them on the kitchen table",
        "They are not on the table",
        "Look in the pocket of your coat",
        "I looked there this morning",
        "You always ask me for the keys",
        "The car is open and the keys are gone",
        "Somebody took them last night",
        "Nobody was here last night",
        "Your sister came in by the back door",
        "She has her own car and her own keys",
        "Then call her and ask about it",
    ),
    (
        "The train is late again",
        "It was late yesterday as well",
        "We could have taken the bus",
        "You said the train was better",
        "I have been waiting since this morning",
        "There is a room where we can sit",
        "The man at the station knows nothing",
        "He told me to come back at nine",
        "My mother is waiting for us at home",
        "Call her and say that we are late",
        "My phone is in the other bag",
        "Here it comes so take your bag",
    ),
    (
        "Dinner is on the table",
        "You made the same soup again",
        "It is the soup that you wanted",
        "I asked for it last week",
        "Sit down and eat with us",
        "Your brother is not home yet",
        "He works until nine every night",
        "He never told me about that",
        "You were not here when he said it",
        "There is bread in the kitchen",
        "We ate the bread this morning",
        "Then we eat the soup without bread",
    ),
    (
        "A letter came for you today",
        "I know what is in that letter",
        "You have not opened it yet",
        "They want us to leave the house",
        "We have lived here for nine years",
        "The house was never really ours",
        "My father made that door and this table",
        "We can take the table with us",
        "Nobody can take the garden",
        "You could see the station from here",
        "Read the letter to me again",
        "It says that they come on Monday",
    ),
)
"""The lines of each play, in order."""

FILLERS = ("um", "uh", "well")

_WHO_DID = (
    "I lost",
    "I saw",
    "I dropped",
    "you forgot",
    "you opened",
    "she took",
    "she wanted",
    "he left",
    "he broke",
    "we sold",
    "we needed",
    "they found",
)
_WHAT = (
    "the keys",
    "the letter",
    "the car",
    "the table",
    "the phone",
    "the bread",
    "my coat",
    "my bag",
    "your phone",
    "your letter",
)
_WHEN_OR_WHERE = (
    "again",
    "yesterday",
    "last night",
    "last week",
    "this morning",
    "on Monday",
    "at home",
    "at the station",
    "in the kitchen",
    "on the train",
)


def improvise(rng: Random) -> list[str | int]:
    """Make up a sentence; 19 of 20 have one or two hesitations: a filler, a pause or a restart.

    Returns:
        The sentence in order: words, and pauses in milliseconds.
    """
    who, what, when = (rng.choice(parts) for parts in (_WHO_DID, _WHAT, _WHEN_OR_WHERE))
    habits = rng.sample(("filler", "pause", "restart"), rng.choice((1, 2, 2))) if rng.random() < 0.95 else []
    spoken: list[str | int] = [who, what]
    if rng.random() < 0.4:
        spoken.append(when)
    if "pause" in habits:
        spoken.insert(rng.randrange(1, len(spoken)), rng.randrange(250, 450))
    if "restart" in habits:
        false_start = rng.choice((who, f"{who} {what.split()[0]}"))
        spoken[:0] = [f"{false_start},", rng.randrange(120, 250)]
    if "filler" in habits:
        place = rng.choice((0, 0, spoken.index(what)))
        spoken[place:place] = [f"{rng.choice(FILLERS)},", rng.randrange(120, 280)]
    return spoken
