"""From utterances to the model's inputs: samples or features, and targets, one row per utterance."""

import numpy as np
import torch
from datasets import Dataset, DatasetDict

from modeling_ser_mtl import SerMtlModel
from ser_mtl.corpora.audio import SAMPLING_RATE, with_samples
from ser_mtl.corpora.augmentation import Augmented
from ser_mtl.corpora.clips import clip_notes, ctc_frames
from ser_mtl.corpora.targets import with_targets
from ser_mtl.errors import UserError, notice
from ser_mtl.model.front_end import front_end_is_frozen, with_features
from ser_mtl.training.adapters import unwrap
from ser_mtl.training.arguments import SerMtlArguments
from ser_mtl.training.method import Start
from ser_mtl.training.stage import Stage


def model_inputs(utterances: Dataset, start: Start, stage: Stage, args: SerMtlArguments) -> Dataset:
    """Add the columns that batches are made of.

    Args:
        utterances: with the columns of `FEATURES`.
        start: the model they are for.
        stage: its `soft_labels` make the raters' distribution emotion's target.
        args: of the training.

    Returns:
        The utterances with `row` (their index), `length` (samples), `<task>_labels`, and `samples`, or `features` and
        `scales` if the front end is frozen and its output kept.

    Raises:
        UserError: audio that cannot be read, or is longer than `args.max_seconds` or the encoder allows; a label that
            the model does not know; or soft labels without raters.
    """
    model = unwrap(start.model)
    always = args.front_end_cache == "always"
    if always and not front_end_is_frozen(model):
        raise UserError(
            "--front_end_cache always: the front end is trained, so its output changes; drop one of the two"
        )
    tokenizer = start.processor.tokenizer if "asr" in model.config.tasks else None
    corpus = utterances.add_column("row", list(range(len(utterances))))
    corpus = with_targets(corpus, start.labels, tokenizer, stage.soft_labels, model.config.value_tasks)
    with args.main_process_first(desc="decoding"):
        corpus = with_samples(corpus, args.max_seconds)  # last: with many files, adding columns after it is slow
    check_lengths(corpus, model.longest_input)
    if args.process_index == 0:
        frames = model.frame_lengths(torch.tensor(corpus["length"][:])).tolist()
        for note in clip_notes(corpus, frames):
            notice(note)
    if args.front_end_cache != "never" and front_end_is_frozen(model):
        with args.main_process_first(desc="front end"):
            corpus = with_features(corpus, model, start.processor.feature_extractor, args.device, always)
    return corpus


def check_lengths(corpus: Dataset, longest: int | None) -> None:
    """Check that the encoder has positions for every utterance: those of Whisper end at 30 seconds.

    Args:
        corpus: with `path` and `length`.
        longest: samples of the longest utterance; None for any length.

    Raises:
        UserError: names the first longer one, and their number.
    """
    lengths = np.asarray(corpus["length"][:])
    if longest is not None and len(long := np.flatnonzero(lengths > longest)):
        first, limit = int(long[0]), longest / SAMPLING_RATE
        raise UserError(
            f"{corpus['path'][first]}: lasts {lengths[first] / SAMPLING_RATE:.1f} seconds, and this encoder has "
            f"positions for {limit:g} ({len(long)} such utterances in all); cut them, or use an --encoder of another "
            "family"
        )


def batch_rows(corpus: Dataset, parts: DatasetDict) -> DatasetDict:
    """The rows of each part that go into batches, without text; dev and test sorted by length, to save padding.

    Args:
        corpus: of `model_inputs`.
        parts: the split corpus.
    """
    row_of = {name: row for row, name in enumerate(corpus["id"][:])}
    lengths = np.asarray(corpus["length"][:])
    inputs = without_text(corpus)
    rows = {name: np.array([row_of[utterance] for utterance in part["id"][:]]) for name, part in parts.items()}
    for name in rows.keys() - {"train"}:
        rows[name] = rows[name][np.argsort(lengths[rows[name]], kind="stable")]
    return DatasetDict({name: inputs.select(chosen) for name, chosen in rows.items()})


def training_rows(rows: Dataset, model: SerMtlModel, args: SerMtlArguments) -> Dataset | Augmented:
    """The rows of the training set, augmented if `args` asks for it.

    No utterance is sped up so far that CTC would lack frames, or slowed down beyond the encoder's positions.
    """
    if not args.augment:
        return rows

    def fits(samples: int, row: dict) -> bool:
        frames = int(model.frame_lengths(torch.tensor([samples])))
        return frames >= ctc_frames(row.get("asr_labels", ())) and samples <= (model.longest_input or samples)

    return Augmented(rows, args.augment, seed_of_order(args), fits)


def seed_of_order(args: SerMtlArguments) -> int:
    """The seed of the order of training utterances, and of their augmentation."""
    return args.seed if args.data_seed is None else args.data_seed


def without_text(corpus: Dataset) -> Dataset:
    """The columns of numbers that a collator needs."""
    audio = [name for name in ("samples", "features", "scales") if name in corpus.column_names]
    targets = [name for name in corpus.column_names if name.endswith("_labels")]
    return corpus.select_columns(["row", "length", *audio, *targets]).with_format("numpy")
