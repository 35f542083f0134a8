"""UA, WA, macro-F1, confusion, WER, CER, CCC and RMSE of predicted utterances, as a metric of the `evaluate` library.

UA is the unweighted accuracy, the mean of the recalls of the classes; WA the weighted accuracy, the share of
utterances that are correct; CCC the concordance correlation coefficient of values. All metrics but RMSE are fractions;
WER and CER can exceed 1.
"""

from collections.abc import Sequence

import evaluate
import jiwer
import numpy as np
from datasets import Features, Value
from numpy.typing import ArrayLike
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, recall_score, root_mean_squared_error

from ser_mtl.corpora.names import ALL
from ser_mtl.errors import UserError
from ser_mtl.metrics import METRICS
from ser_mtl.tasks import CLASSIFICATION_TASKS, VALUE_TASKS

_TRANSCRIPTS = {"asr": "text", "asr_adapters_off": "text_adapters_off"}
_COLUMNS = (*CLASSIFICATION_TASKS, *VALUE_TASKS, *_TRANSCRIPTS.values())
_CITATION = "Gao, Shi, Chu, Kawahara: Enhancing two-stage finetuning for speech emotion recognition using adapters"


class SerMtlMetric(evaluate.Metric):
    """All metrics of one set of utterances.

    `compute(predictions=..., references=...)` takes two lists of rows in the same order, each row a dict of
    `emotion`, `gender`, `style` and `text`, each a string or None, and `valence`, `activation` and `dominance`, each a
    number or None; missing keys count as None. A prediction may also hold `text_adapters_off`, the transcript with the
    adapters switched off, scored against `text`.

    An utterance counts for a task if it has both a reference and a prediction. A transcript may be empty, a
    reference text may not: an empty one means "not annotated". A task without any such utterance is left out.

    Args:
        labels: the classes of each task, in the order of the confusion matrix.
    """

    def __init__(self, labels: dict[str, list[str]]):
        self.labels = labels
        # In memory, so that parallel runs share no cache file and no lock.
        super().__init__(keep_in_memory=True)

    def add_batch(self, *, predictions: list[dict], references: list[dict]) -> None:
        """Add rows; a missing column counts as None."""
        # The library fills in missing columns of every row but the first, which is a KeyError.
        empty = dict.fromkeys(_COLUMNS)
        super().add_batch(
            predictions=[empty | row for row in predictions], references=[empty | row for row in references]
        )

    def _info(self) -> evaluate.MetricInfo:
        # `evaluate` 0.4.6 refuses None in columns of type "string", but not in "large_string".
        row = {column: Value("float64" if column in VALUE_TASKS else "large_string") for column in _COLUMNS}
        return evaluate.MetricInfo(
            description="Speech emotion recognition with gender, speaking style and transcripts.",
            citation=_CITATION,
            inputs_description="predictions, references: dicts of emotion, gender, style and text, or None.",
            features=Features({"predictions": row, "references": row}),
        )

    def _compute(self, predictions: list[dict], references: list[dict]) -> dict:
        scores: dict = {"n": len(references)}
        for task in (*CLASSIFICATION_TASKS, *VALUE_TASKS):
            pairs = [(r[task], p[task]) for r, p in zip(references, predictions, strict=True)]
            pairs = [pair for pair in pairs if None not in pair]
            if pairs:
                values = (_values if task in VALUE_TASKS else classification_scores)(*zip(*pairs, strict=True))
                scores[task] = {metric.key: values[metric.key] for metric in METRICS if metric.group == task}
                if task == "emotion":
                    scores[task] |= self._emotion_details(*zip(*pairs, strict=True))
        for task, column in _TRANSCRIPTS.items():
            pairs = [(r["text"], p[column]) for r, p in zip(references, predictions, strict=True)]
            pairs = [(text, transcript) for text, transcript in pairs if text and transcript is not None]
            if pairs:
                scores[task] = _recognition(*zip(*pairs, strict=True))
        return scores

    def _emotion_details(self, references: tuple[str, ...], predictions: tuple[str, ...]) -> dict:
        labels = self.labels["emotion"]
        return {
            "confusion_matrix": confusion_matrix(references, predictions, labels=labels).tolist(),
            "labels": list(labels),
        }


def metrics_by_group(metric: SerMtlMetric, predictions: list[dict], references: list[dict]) -> dict[str, dict]:
    """Compute `metric` on all utterances and on those of each speaking style.

    Returns:
        `{"all": M, <style>: M, ...}`, one entry for each style among the references, sorted. Within one style the
        metrics of the style task are of its only class.

    Raises:
        UserError: a style has the name of all utterances.
    """
    styles = sorted({style for row in references if (style := row.get("style")) is not None})
    if ALL in styles:
        raise UserError(f"style {ALL!r}: means all utterances in results; rename the style")
    scores = {ALL: metric.compute(predictions=predictions, references=references)}
    for style in styles:
        group = [(p, r) for p, r in zip(predictions, references, strict=True) if r.get("style") == style]
        group_predictions, group_references = map(list, zip(*group, strict=True))
        scores[style] = metric.compute(predictions=group_predictions, references=group_references)
    return scores


def classification_scores(references: Sequence[str], predictions: Sequence[str]) -> dict[str, float]:
    """UA, WA and macro-F1 of one task."""
    # balanced_accuracy_score is the same number, but warns about classes that are predicted and never present.
    present = sorted(set(references))
    return {
        "ua": float(recall_score(references, predictions, labels=present, average="macro")),
        "wa": float(accuracy_score(references, predictions)),
        "macro_f1": float(f1_score(references, predictions, average="macro")),
    }


def ccc(annotated: ArrayLike, predicted: ArrayLike) -> float:
    """The concordance correlation coefficient, 2 cov(x, y) / (var x + var y + (mean x - mean y)^2) (Lin 1989).

    Variances and covariance are divided by n, as there. 0 where the annotated values do not vary.
    """
    x, y = np.asarray(predicted, dtype=np.float64), np.asarray(annotated, dtype=np.float64)
    if y.min() == y.max():
        return 0.0
    covariance = ((x - x.mean()) * (y - y.mean())).mean()
    coefficient = 2 * covariance / (x.var() + y.var() + (x.mean() - y.mean()) ** 2)
    return float(np.clip(coefficient, -1, 1))  # it may be beyond by rounding


def _values(annotated: tuple[float, ...], predicted: tuple[float, ...]) -> dict[str, float]:
    return {"ccc": ccc(annotated, predicted), "rmse": float(root_mean_squared_error(annotated, predicted))}


def _recognition(references: tuple[str, ...], hypotheses: tuple[str, ...]) -> dict[str, float]:
    return {
        "wer": jiwer.wer(list(references), list(hypotheses)),
        "cer": jiwer.cer(list(references), list(hypotheses)),
    }
