"""The task embeddings in two dimensions."""

import numpy as np
from sklearn.decomposition import PCA


def two_dimensions(embeddings: dict[str, np.ndarray]) -> list[dict[str, list[float]]] | None:
    """Project x_e, x_g and x_s onto the first two principal components of all of them together.

    Embeddings are scaled to length 1 first: the self-contrastive losses act on their direction.

    Args:
        embeddings: by task, (utterances, width) each.

    Returns:
        For each utterance its point by task, such as {"emotion": [0.12, -0.5], "gender": [0.9, 0.01]}. None if there
        are no embeddings, or of different widths, as with the head of an earlier system.
    """
    if len({x.shape[1] for x in embeddings.values()}) != 1:
        return None
    unit = {task: x / np.linalg.norm(x, axis=1, keepdims=True).clip(1e-12) for task, x in embeddings.items()}
    together = np.nan_to_num(np.concatenate(list(unit.values())).astype(np.float64))  # NaN if training diverged
    components = PCA(n_components=min(2, *together.shape), svd_solver="full").fit_transform(together)
    points = np.split(np.pad(components, ((0, 0), (0, 2 - components.shape[1]))), len(unit))
    return [
        {task: [round(float(value), 4) for value in point] for task, point in zip(unit, utterance, strict=True)}
        for utterance in zip(*points, strict=True)
    ]
