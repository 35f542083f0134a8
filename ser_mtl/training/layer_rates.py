"""A learning rate for each layer of the Transformer: the lower, the smaller."""

import re

from modeling_ser_mtl import SerMtlModel

_LAYER = re.compile(r"(?:^|\.)(?:layers|layer_adapters)\.(\d+)\.")


def layer_factors(model: SerMtlModel, decay: float) -> dict[int, float]:
    """What the learning rate is multiplied by, by id of the parameter, where that is not 1.

    The last layer and its adapters have the full rate, each layer below `decay` times that of the one above, and what
    comes before the first layer `decay` times that of the first. Heads have the full rate.

    Args:
        model: bare, not wrapped.
        decay: above 0, at most 1.
    """
    if decay == 1:
        return {}
    layers = len(model.transformer_layers())
    factors = {}
    for name, parameter in model.named_parameters():
        if found := _LAYER.search(name):
            factors[id(parameter)] = decay ** (layers - 1 - int(found[1]))
        elif name.startswith("encoder."):
            factors[id(parameter)] = decay**layers
    return factors
