"""What makes a program wait for a GPU."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class Waiting(TorchDispatchMode):
    """Notes every operation for which a real GPU has to be waited for: what reads from it, and copies to and fro."""

    def __init__(self):
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        """Run the operation and note it."""
        name, kwargs = function.name(), kwargs or {}
        copies = name == "aten::_to_copy" and torch.device(kwargs.get("device") or args[0].device) != args[0].device
        if copies or name in ("aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select"):
            self.found.append(name)
        return 1 if name == "aten::_local_scalar_dense" else function(*args, **kwargs)
