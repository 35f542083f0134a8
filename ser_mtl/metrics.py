"""The metrics: one table, from which results, tables, figures, cards and the Hub's index take names and order."""

from dataclasses import dataclass

from ser_mtl.tasks import CLASSIFICATION_TASKS


@dataclass(frozen=True)
class Metric:
    """One number about a model's predictions; `ser_mtl.evaluation.scores` computes it.

    Attributes:
        group: the object in `results.json` that holds it: a task, or "asr_adapters_off".
        key: its name there.
        title: in tables and figures.
        hub_type: the Hub's name for it.
        higher_is_better: which way is better.
        in_summary: whether the short table at a run's end shows it.
    """

    group: str
    key: str
    title: str
    hub_type: str
    higher_is_better: bool = True
    in_summary: bool = True

    @property
    def name(self) -> str:
        """As the Trainer logs it: "emotion_ua"."""
        return f"{self.group}_{self.key}"


METRICS: tuple[Metric, ...] = (
    Metric("emotion", "ua", "emotion UA", "recall"),
    Metric("emotion", "wa", "emotion WA", "accuracy"),
    Metric("emotion", "macro_f1", "emotion F1", "f1"),
    *(
        metric
        for task in CLASSIFICATION_TASKS
        if task != "emotion"
        for metric in (
            Metric(task, "ua", f"{task} UA", "recall"),
            Metric(task, "wa", f"{task} WA", "accuracy", in_summary=False),
        )
    ),
    Metric("asr", "wer", "WER", "wer", higher_is_better=False),
    Metric("asr", "cer", "CER", "cer", higher_is_better=False, in_summary=False),
    Metric("asr_adapters_off", "wer", "WER, adapters off", "wer", higher_is_better=False),
    Metric("asr_adapters_off", "cer", "CER, adapters off", "cer", higher_is_better=False, in_summary=False),
)
"""All metrics, in the order of the tables."""
