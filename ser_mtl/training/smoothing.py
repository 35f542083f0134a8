"""Label smoothing of the classification tasks."""

import torch.nn.functional as F
from torch import Tensor


def smoothed(inputs: dict[str, Tensor], labels: dict[str, list[str]], epsilon: float) -> dict[str, Tensor]:
    """The inputs of a training batch, with the targets of every classification task smoothed.

    With K classes, a target q becomes (1 - epsilon) q + epsilon / K (Szegedy et al. 2016, eq. 7): q is one class, or
    the raters' distribution. An utterance that is not annotated stays so. Transcripts are left as they are.

    Args:
        inputs: of a batch; `<task>_labels` as `modeling_ser_mtl.classification_loss` takes them.
        labels: the classes of each classification task.
        epsilon: the share that is spread over all classes; 0 changes nothing.
    """
    if not epsilon:
        return inputs
    targets = {f"{task}_labels": len(classes) for task, classes in labels.items() if f"{task}_labels" in inputs}
    return inputs | {name: _smoothed(inputs[name], classes, epsilon) for name, classes in targets.items()}


def _smoothed(labels: Tensor, classes: int, epsilon: float) -> Tensor:
    """(batch,) classes or (batch, classes) shares, -100 for "not annotated" -> (batch, classes) shares."""
    hard = not labels.is_floating_point()
    shares = F.one_hot(labels.clamp(min=0), classes).float() if hard else labels.float()
    missing = labels < 0 if hard else (labels < 0).all(dim=-1)
    return ((1 - epsilon) * shares + epsilon / classes).masked_fill(missing[:, None], -100.0)
