"""The table of tasks: their columns, targets, heads, titles and the Hub's task types."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Task:
    """A property of an utterance that a model predicts.

    Attributes:
        name: its name in flags, in `results.json` and in the model.
        column: the corpus column that holds its labels; None there means "not annotated".
        kind: "classes" for one label per utterance, "text" for a transcript, "value" for a number.
        title: its name in tables and figures.
        hub_type: the Hub's name for tasks of this kind.
    """

    name: str
    column: str
    kind: Literal["classes", "text", "value"]
    title: str
    hub_type: str


TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task("emotion", "emotion", "classes", "emotion", "audio-classification"),
        Task("gender", "gender", "classes", "gender", "audio-classification"),
        Task("style", "style", "classes", "style", "audio-classification"),
        Task("asr", "text", "text", "ASR", "automatic-speech-recognition"),
        Task("valence", "valence", "value", "valence", "other"),  # the Hub has no type for values of audio
        Task("activation", "activation", "value", "activation", "other"),
        Task("dominance", "dominance", "value", "dominance", "other"),
    )
}
"""All tasks by name, in the order of tables and figures."""

CLASSIFICATION_TASKS = tuple(task.name for task in TASKS.values() if task.kind == "classes")
"""Names of the tasks with one label per utterance."""

VALUE_TASKS = tuple(task.name for task in TASKS.values() if task.kind == "value")
"""Names of the tasks with one number per utterance."""
