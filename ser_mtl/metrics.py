"""The table of metrics: their names and order in results, tables, figures, cards and the Hub's index."""

from dataclasses import dataclass

from ser_mtl.tasks import CLASSIFICATION_TASKS, VALUE_TASKS


@dataclass(frozen=True)
class Metric:
    """One number about a model's predictions; `ser_mtl.evaluation.scores` computes it.

    Attributes:
        group: the object in `results.json` that holds it: a task, or "asr_adapters_off".
        key: its name in that object.
        title: its name in tables and figures.
        hub_type: the Hub's name for it.
        higher_is_better: False for error rates.
        in_summary: whether the table at the end of a run shows it.
        long_title: its name in the Hub's index; by default, the title.
    """

    group: str
    key: str
    title: str
    hub_type: str
    higher_is_better: bool = True
    in_summary: bool = True
    long_title: str | None = None

    @property
    def name(self) -> str:
        """The name in the Trainer's log, such as "emotion_ua"."""
        return f"{self.group}_{self.key}"


_UA = "UA (mean of the per-class recalls)"
_WA = "WA (accuracy)"
_CCC = "CCC (concordance correlation coefficient)"

METRICS: tuple[Metric, ...] = (
    Metric("emotion", "ua", "emotion UA", "recall", long_title=f"emotion {_UA}"),
    Metric("emotion", "wa", "emotion WA", "accuracy", long_title=f"emotion {_WA}"),
    Metric("emotion", "macro_f1", "emotion F1", "f1", long_title="emotion macro F1"),
    *(
        metric
        for task in CLASSIFICATION_TASKS
        if task != "emotion"
        for metric in (
            Metric(task, "ua", f"{task} UA", "recall", long_title=f"{task} {_UA}"),
            Metric(task, "wa", f"{task} WA", "accuracy", in_summary=False, long_title=f"{task} {_WA}"),
        )
    ),
    Metric("asr", "wer", "WER", "wer", higher_is_better=False, long_title="ASR WER"),
    Metric("asr", "cer", "CER", "cer", higher_is_better=False, in_summary=False, long_title="ASR CER"),
    Metric("asr_adapters_off", "wer", "WER, adapters off", "wer", higher_is_better=False),
    Metric("asr_adapters_off", "cer", "CER, adapters off", "cer", higher_is_better=False, in_summary=False),
    *(
        metric
        for task in VALUE_TASKS
        for metric in (
            Metric(task, "ccc", f"{task} CCC", "ccc", long_title=f"{task} {_CCC}"),
            Metric(task, "rmse", f"{task} RMSE", "rmse", higher_is_better=False, in_summary=False),
        )
    ),
)
"""All metrics, in the order of the tables."""

METRIC: dict[str, Metric] = {metric.name: metric for metric in METRICS}
"""Metrics by name."""

MEAN_CCC = "mean_ccc"
"""The mean CCC of the value tasks: it compares epochs where emotion is not trained."""
