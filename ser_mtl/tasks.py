"""The tasks: one table, from which columns, targets, heads, titles and the Hub's task types follow."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Task:
    """One thing that a model predicts about an utterance.

    Attributes:
        name: in flags, in `results.json`, and of the model's head.
        column: of a corpus, where its annotation is; None there means "not annotated".
        kind: "classes" has one label an utterance, "text" a transcript.
        title: in tables and figures.
        hub_type: the Hub's name for tasks of this kind.
    """

    name: str
    column: str
    kind: Literal["classes", "text"]
    title: str
    hub_type: str


TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task("emotion", "emotion", "classes", "emotion", "audio-classification"),
        Task("gender", "gender", "classes", "gender", "audio-classification"),
        Task("style", "style", "classes", "style", "audio-classification"),
        Task("asr", "text", "text", "ASR", "automatic-speech-recognition"),
    )
}
"""All tasks, in the order in which they are listed everywhere."""

CLASSIFICATION_TASKS = tuple(task.name for task in TASKS.values() if task.kind == "classes")
"""Names of the tasks with one label an utterance."""
