"""The workload of the speed benchmark: noise with IEMOCAP's utterance lengths, and untrained encoders."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import datasets
import numpy as np
import pandas as pd
import soundfile
from transformers import PreTrainedConfig, Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2Model, set_seed
from transformers.utils import logging

from ser_mtl.corpora.audio import SAMPLING_RATE
from ser_mtl.corpora.batching import LengthGroupedSampler

UTTERANCES = 5_531
BATCH_SIZE = 16
EMOTIONS = ("angry", "happy", "neutral", "sad")
CHARACTERS_A_SECOND = 14

_QUANTILES = (*np.linspace(0, 0.95, 20), 0.97, 0.98, 0.99, 0.995, 1)
_SECONDS = (
    0.58, 1.39, 1.68, 1.91, 2.13, 2.32, 2.55, 2.78, 3.0, 3.29, 3.58, 3.89, 4.25, 4.69, 5.18, 5.77, 6.53, 7.37, 8.69,
    11.06, 12.69, 14.1, 15.55, 17.97, 34.14,
)  # fmt: skip
"""Lengths of IEMOCAP's 5,531 utterances of four emotions, at these quantiles; 4.5 seconds in the mean."""


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A folder for all that a benchmark writes, the cache of `datasets` included; the libraries are quiet."""
    datasets.disable_progress_bars()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as scratch:
        datasets.config.HF_DATASETS_CACHE = Path(scratch) / "cache"
        yield Path(scratch)


def iemocap_lengths(utterances: int = UTTERANCES) -> np.ndarray:
    """Lengths with IEMOCAP's distribution, in seconds, ascending: (utterances,)."""
    return np.interp((np.arange(utterances) + 0.5) / utterances, _QUANTILES, _SECONDS)


def utterances_of_batches(batches: int) -> np.ndarray:
    """Lengths in seconds of the utterances of `batches` batches of a real epoch: (batches x 16,).

    Whole batches are taken at even steps from a length-grouped epoch over the corpus. So few utterances drawn one by
    one would differ too much in length; whole batches keep the epoch's share of padding.
    """
    lengths = iemocap_lengths()
    order = np.array(list(LengthGroupedSampler(lengths, BATCH_SIZE, seed=0)))
    groups = lengths[order[: len(order) // BATCH_SIZE * BATCH_SIZE].reshape(-1, BATCH_SIZE)]
    groups = groups[groups.mean(axis=1).argsort()]
    return groups[((np.arange(batches) + 0.5) * len(groups) / batches).astype(int)].ravel()


def padded_share(lengths: np.ndarray, order: Sequence[int]) -> float:
    """Share of positions that are padding, over the batches of 16 of `lengths` in this order."""
    batches = [lengths[order[i : i + BATCH_SIZE]] for i in range(0, len(order), BATCH_SIZE)]
    return 1 - sum(b.sum() for b in batches) / sum(len(b) * b.max() for b in batches)


def write_noise(folder: Path, seconds: np.ndarray) -> list[np.ndarray]:
    """Write a folder corpus of noise with labels of every task; about eight more, in fold 1, are its test set.

    Returns:
        The samples of the training utterances, float32, as they are read from the files.
    """
    random = np.random.default_rng(0)
    folder.mkdir()
    training, rows = [], []
    for number, length in enumerate([*seconds, *seconds[:: len(seconds) // 8]]):
        test = number >= len(seconds)
        samples = random.normal(0, 3000, round(length * SAMPLING_RATE)).clip(-32768, 32767).astype(np.int16)
        soundfile.write(folder / f"{number}.wav", samples, SAMPLING_RATE, subtype="PCM_16")
        letters = random.choice(list("abcdefghijklmnopqrstuvwxyz "), max(1, round(length * CHARACTERS_A_SECOND)))
        rows.append(
            {
                "file_name": f"{number}.wav",
                "emotion": EMOTIONS[number % 4],
                "gender": ("female", "male")[number // 4 % 2],
                "style": ("improvised", "scripted")[number // 8 % 2],
                "text": "".join(letters),
                "speaker": f"{'test' if test else 'train'}{number % 2}",
                "fold": 1 if test else 2,
            }
        )
        training += [] if test else [samples.astype(np.float32) / 32768]
    pd.DataFrame(rows).to_csv(folder / "metadata.csv", index=False)
    return training


def xls_r_300m() -> PreTrainedConfig:
    """XLS-R 300m's architecture, for untrained weights: the time does not depend on their values."""
    return _xls_r(hidden_size=1024, num_hidden_layers=24, num_attention_heads=16)


def four_layers_of_512() -> PreTrainedConfig:
    """XLS-R's front end under a small Transformer, which a CPU can train."""
    return _xls_r(hidden_size=512, num_hidden_layers=4, num_attention_heads=8)


def _xls_r(hidden_size: int, **size: int) -> PreTrainedConfig:
    return Wav2Vec2Config(
        hidden_size=hidden_size,
        intermediate_size=4 * hidden_size,
        conv_bias=True,
        feat_extract_norm="layer",
        do_stable_layer_norm=True,
        mask_time_prob=0.075,
        layerdrop=0.0,
        **size,
    )


def save_untrained(config: PreTrainedConfig, folder: Path) -> None:
    """Write an untrained encoder as a checkpoint that `from_pretrained` reads."""
    set_seed(0)
    Wav2Vec2Model(config).save_pretrained(folder)
    Wav2Vec2FeatureExtractor(return_attention_mask=True).save_pretrained(folder)


def transformer_flops(config: PreTrainedConfig, seconds: np.ndarray, passes: float) -> float:
    """Floating-point operations of the Transformer on utterances of these lengths, padding left out.

    For each frame and layer 4 d^2 (attention), 2 d d_ff (feed-forward) and 2 T d (scores) multiply-adds, and once the
    position convolution's d^2 k / groups. `passes` is 1 forward, 3 with the gradients of activations and weights, 2
    with those of activations alone, as where the weights are frozen. The front end is not counted.
    """
    frames = np.asarray(seconds) * SAMPLING_RATE / np.prod(config.conv_stride)
    d = config.hidden_size
    layer = 4 * d**2 + 2 * d * config.intermediate_size + 2 * frames * d
    position = d**2 * config.num_conv_pos_embeddings / config.num_conv_pos_embedding_groups
    return float(2 * passes * (frames * (config.num_hidden_layers * layer + position)).sum())
