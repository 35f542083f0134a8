"""Speed of training and inference, against the stock classes and the nearest peer: audio-seconds per second.

python benchmarks/throughput.py --quick
python benchmarks/throughput.py --inference_only
python benchmarks/throughput.py --json throughput.json

All share the encoder, batch size, precision and utterances, and take turns in one run; the ratio is the median over
rounds. The encoder is XLS-R 300m's architecture on a GPU; on a CPU there are two: the demo's, and four layers of 512
on XLS-R's front end. All are untrained.
"""

import argparse
import statistics
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch
from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    Trainer,
    TrainingArguments,
    Wav2Vec2ForSequenceClassification,
    pipeline,
)
from transformers.trainer_callback import PrinterCallback

from benchmarks.measuring import CUDA, Epoch, Measured, measure, now, peak_flops, train_an_epoch, waits_an_update
from benchmarks.others import OTHERS, other_trainer
from benchmarks.ours import QUIET, Prepared, prepare_stage1, prepare_stage2
from benchmarks.workload import (
    BATCH_SIZE,
    EMOTIONS,
    four_layers_of_512,
    iemocap_lengths,
    padded_share,
    save_untrained,
    scratch_folder,
    transformer_flops,
    utterances_of_batches,
    write_noise,
    xls_r_300m,
)
from ser_mtl.corpora.batching import LengthGroupedSampler
from ser_mtl.files import write_json
from ser_mtl.inference.recognizer import infer
from ser_mtl.model.demo_encoder import demo_encoder
from ser_mtl.training.arguments import SerMtlArguments
from ser_mtl.training.method import Start

OURS = ("ours, stage 1", "ours, stage 2")
Noise = tuple[np.ndarray, list[np.ndarray]]
"""Lengths in seconds, (utterances,), and the samples of each."""
EPOCHS = 200
"""Of each stage, in the paper."""
BARS = dict(zip(OURS, (5, 6), strict=True))
"""Smallest ratio to the speed of the stock recipe that each stage must reach with every encoder."""


# ------------------------------------------------------------------------------------------------ what is compared


def run_flags(folder: Path) -> dict:
    """Settings of all trainings: one epoch, nothing but training."""
    return {"output_dir": str(folder / "run"), "num_train_epochs": 1, "report_to": "none"} | QUIET


def our_stages(encoder: Path, folder: Path) -> dict[str, Prepared]:
    """Stage 1, and stage 2 on top of it."""
    run, saved = SerMtlArguments(**run_flags(folder)), folder / f"stage1 of {encoder.name}"
    stage1 = prepare_stage1(encoder, folder / "noise", run)
    for part in (stage1.start.model, stage1.start.processor):
        part.save_pretrained(saved)
    return {OURS[0]: stage1, OURS[1]: prepare_stage2(saved, folder / "noise", run)}


def answer_stock(pipe: Callable, clips: list[np.ndarray], batch_size: int, warming_up: bool) -> float:
    """Seconds of the stock pipeline."""
    begun = now()
    pipe(clips[:batch_size] if warming_up else clips, batch_size=batch_size)
    return now() - begun


def answer_ours(start: Start, clips: list[np.ndarray], warming_up: bool) -> float:
    """Seconds of ours, transcripts included."""
    model = start.model.eval()
    begun = now()
    infer(model, start.processor, clips[:BATCH_SIZE] if warming_up else clips)
    return now() - begun


# ---------------------------------------------------------------------------------------------------- measurements


def rows_of(
    mode: str,
    measured: dict[str, Measured],
    stock: str,
    lengths: np.ndarray,
    flops: dict[str, float],
    padding: dict[str, float] | None = None,
) -> list[dict]:
    """Rows of the table; a ratio is the median of the ratios within each round."""
    peak = peak_flops()
    rows = []
    for name, system in measured.items():
        seconds = statistics.median(system.seconds)
        pairs = zip(measured[stock].seconds, system.seconds, strict=True)
        rows.append(
            {
                "name": name,
                "mode": mode,
                "audio_seconds_per_second": round(float(lengths.sum()) / seconds, 1),
                "ratio_to_stock": round(statistics.median(theirs / mine for theirs, mine in pairs), 2),
                "peak_memory_gib": system.memory,
                "padded_share": padding and padding[name],
                "mfu": round(flops[name] / seconds / peak, 4) if peak else None,
            }
        )
    return rows


# ------------------------------------------------------------------------------------------------------- the parts


def training_part(encoder: Path, folder: Path, noise: Noise, ours: dict[str, Prepared], rounds: int) -> list[dict]:
    """Rows of training: both stages against the stock classes and the peer."""
    lengths, samples = noise
    stage1 = ours[OURS[0]]
    targets = stage1.trainer.corpus.filter(lambda row: row["fold"] == 2)
    targets = {row["path"]: (row["emotion_labels"], row["asr_labels"]) for row in targets}
    rows = []
    for number, sound in enumerate(samples):
        emotion, characters = targets[str(folder / "noise" / f"{number}.wav")]
        rows.append({"samples": sound, "emotion_labels": emotion, "asr_labels": characters})
    args = run_flags(folder) | {
        "per_device_train_batch_size": BATCH_SIZE,
        "bf16": CUDA,
        "remove_unused_columns": False,
    }
    del args["selection"]  # a flag of our Trainer alone
    vocabulary = stage1.start.model.config.vocab_size
    trainers: dict[str, Trainer] = {
        name: other_trainer(name, encoder, rows, vocabulary, TrainingArguments(**args)) for name in OTHERS
    }
    trainers |= {name: stage.trainer for name, stage in ours.items()}
    runs = {}
    for name, trainer in trainers.items():
        trainer.pop_callback(PrinterCallback)
        trainer.add_callback(clock := Epoch())
        runs[name] = partial(train_an_epoch, trainer, clock)
    measured = measure(runs, rounds)
    stock = min(list(OTHERS)[:2], key=lambda name: statistics.median(measured[name].seconds))
    config = stage1.start.model.config.encoder_config
    order = list(LengthGroupedSampler(lengths, BATCH_SIZE, seed=0))
    random = np.random.default_rng(0).permutation(len(lengths))
    padding = {name: round(padded_share(lengths, order if name in ours else random), 4) for name in trainers}
    passes = dict.fromkeys(trainers, 3) | {OURS[1]: 2}
    flops = {name: transformer_flops(config, lengths, n) for name, n in passes.items()}
    return rows_of("training", measured, stock, lengths, flops, padding)


def minutes_of_a_fold(rows: list[dict], front_end_speed: float) -> float:
    """Minutes of 200 epochs of both stages on a fold of IEMOCAP, at the speed of these rows.

    Without evaluation and start-up.

    Args:
        rows: of the table, with both stages of ours.
        front_end_speed: audio-seconds per second of the front end, which runs once for both stages.
    """
    corpus = float(iemocap_lengths().sum())
    speeds = [row["audio_seconds_per_second"] for row in rows if row["name"] in OURS]
    return (corpus / front_end_speed + sum(EPOCHS * 0.8 * corpus / speed for speed in speeds)) / 60


def inference_part(encoder: Path, start: Start, clips: int, rounds: int) -> list[dict]:
    """Rows of inference: ours against `pipeline("audio-classification")`, by single clips and its best batch size."""
    random = np.random.default_rng(0)
    lengths = random.permutation(iemocap_lengths(clips))
    sounds = [random.normal(0, 0.1, round(n * 16_000)).astype(np.float32) for n in lengths]
    device = "cuda" if CUDA else "cpu"
    stock = Wav2Vec2ForSequenceClassification.from_pretrained(encoder, num_labels=len(EMOTIONS), dtype=torch.float32)
    feature_extractor = AutoFeatureExtractor.from_pretrained(encoder, trust_remote_code=False)
    pipe = pipeline("audio-classification", model=stock, feature_extractor=feature_extractor, device=device)
    start.model.to(device)
    trial = sounds[: max(32, clips // 8)]
    sizes = (2, 4, 8, 16, 32) if CUDA else (2, 4, 8)
    best = min(sizes, key=lambda size: answer_stock(pipe, trial, size, warming_up=False))
    runs = {
        "pipeline, one by one": partial(answer_stock, pipe, sounds, 1),
        f"pipeline, batches of {best}": partial(answer_stock, pipe, sounds, best),
        "ours": partial(answer_ours, start, sounds),
    }
    measured = measure(runs, rounds)
    flops = dict.fromkeys(runs, transformer_flops(start.model.config.encoder_config, lengths, 1))
    return rows_of("inference", measured, "pipeline, one by one", lengths, flops)


def show(found: dict) -> None:
    """Print the table of an encoder, and the other results below it."""
    print(f"\n{found['device']}; {found['encoder']}")
    print(f"{'mode':10} {'name':32} {'audio s/s':>9} {'x stock':>8} {'GiB':>6} {'padded':>7} {'MFU':>6}")
    for row in found["rows"]:
        padded = "" if row["padded_share"] is None else f"{100 * row['padded_share']:.1f} %"
        mfu = "" if row["mfu"] is None else f"{100 * row['mfu']:.1f} %"
        memory = "" if row["peak_memory_gib"] is None else f"{row['peak_memory_gib']:.2f}"
        print(
            f"{row['mode']:10} {row['name']:32} {row['audio_seconds_per_second']:9.1f} {row['ratio_to_stock']:8.2f} "
            f"{memory:>6} {padded:>7} {mfu:>6}"
        )
    for row in found["rows"]:
        if (bar := BARS.get(row["name"])) and row["ratio_to_stock"] < bar:
            print(f"{row['name']}: is below {bar} times the stock recipe")
    for name, waits in found.get("waits_an_update", {}).items():
        events = ", ".join(f"{count:g} x {event}" for event, count in waits.items()) or "never"
        print(f"An update of {name}, waits for the device: {events}")
    if minutes := found.get("minutes_of_a_fold"):
        print(f"A fold of IEMOCAP, {EPOCHS} epochs of both stages, extrapolated: {minutes:.0f} minutes")


def untrained_encoders(folder: Path) -> list[Path]:
    """Write the encoders that are measured."""
    if CUDA:
        save_untrained(xls_r_300m(), folder / "xls-r")
        return [folder / "xls-r"]
    save_untrained(four_layers_of_512(), folder / "512")
    return [Path(demo_encoder(folder / "demo")), folder / "512"]


def compare(encoder: Path, folder: Path, noise: Noise, clips: int, rounds: int, inference_only: bool) -> dict:
    """All rows of an encoder; `clips` is the number answered in inference."""
    ours = our_stages(encoder, folder)
    found: dict = {"device": device_name(), "encoder": encoder_name(encoder), "rows": []}
    if not inference_only:
        found["rows"] = training_part(encoder, folder, noise, ours, rounds)
        minutes = minutes_of_a_fold(found["rows"], ours[OURS[0]].front_end_speed)
        found["minutes_of_a_fold"] = round(minutes, 1)
        if CUDA:
            found["waits_an_update"] = {name: waits_an_update(stage.trainer) for name, stage in ours.items()}
    found["rows"] += inference_part(encoder, ours[OURS[0]].start, clips, rounds)
    return found


def main() -> None:
    """Measure, print, and write json where asked: a list with an entry for each encoder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="minutes on two cores: fewer utterances and rounds")
    parser.add_argument("--inference_only", action="store_true", help="leave the trainings out")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where the figures are written")
    parser.add_argument("--encoder", type=Path, help="folder of another wav2vec2 encoder [untrained, by device]")
    args = parser.parse_args()
    with scratch_folder() as folder:
        encoders = [args.encoder] if args.encoder else untrained_encoders(folder)
        batches, clips, rounds = (6, 60, 2) if args.quick else (320 if CUDA else 48, 1000, 3)
        lengths = utterances_of_batches(1 if args.inference_only else batches)
        noise = lengths, write_noise(folder / "noise", lengths)
        found = [compare(encoder, folder, noise, clips, rounds, args.inference_only) for encoder in encoders]
    for one in found:
        show(one)
    if args.json:
        write_json(args.json, found)


def device_name() -> str:
    """The device of the measurements."""
    return torch.cuda.get_device_name() if CUDA else f"CPU, {torch.get_num_threads()} threads"


def encoder_name(folder: Path) -> str:
    """The encoder's size in words."""
    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    return f"wav2vec2, {config.num_hidden_layers} layers of {config.hidden_size}"


if __name__ == "__main__":
    main()
