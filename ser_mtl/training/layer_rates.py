"""Layer-wise learning-rate decay: the lower the layer of the Transformer, the smaller its rate."""

import re

from modeling_ser_mtl import SerMtlModel

_LAYER = re.compile(r"(?:^|\.)(?:layers|layer_adapters)\.(\d+)\.")


def layer_factors(model: SerMtlModel, decay: float) -> dict[int, float]:
    """The factor of the learning rate, by id of the parameter, where it is not 1.

    Heads, the last layer and its adapters have the full rate; each layer has `decay` times the rate of the one above,
    and the parameters before the first layer `decay` times that of the first.

    Args:
        model: not wrapped.
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
