"""Say what is heard in recordings: transcript, emotion, gender and speaking style.

python predict.py clip.wav another.flac folder/ --model me/xlsr-ser-stage2
python predict.py folder/ --model runs/iemocap/stage2/fold1 --format csv > answers.csv
"""

import sys
from argparse import Namespace
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import soundfile
import torch
from tqdm import tqdm
from transformers import AutoConfig, Wav2Vec2Processor

from modeling_ser_mtl import SerMtlModel
from ser_mtl.cli import command_line
from ser_mtl.corpora.audio import SAMPLING_RATE, decode
from ser_mtl.errors import UserError, hub_errors
from ser_mtl.inference.formats import FORMATS
from ser_mtl.inference.recognizer import infer
from ser_mtl.recipe import Parser

RUNS = Path("runs")
AT_ONCE = 30 * 60 * SAMPLING_RATE
"""Samples held in memory at once, half an hour of them: enough to find batches of like length."""
LONGEST = 2 * 60
"""Seconds of a recording that still passes for one utterance; attention takes the square of them in memory."""


def main() -> None:
    """Recordings in; a line for each on standard output."""
    args = parse_arguments()
    files = audio_files(args.paths)
    model, processor = load(args.model or last_run())
    broken: list[Path] = []
    labels = {task: model.config.labels[task] for task in model.config.classification_tasks}
    for line in FORMATS[args.format](predict(files, model, processor, broken), labels):
        tqdm.write(line)
    if broken:
        raise UserError(f"{len(broken)} of {len(files)} files have no answer; the others are above")


def parse_arguments() -> Namespace:
    """Read the command line."""
    parser = Parser(description=__doc__)
    parser.add_argument("paths", nargs="+", type=Path, help="Audio files, and folders to look through for them.")
    parser.add_argument("--model", help="Hub id or run folder. [the run in runs/ that finished last]")
    parser.add_argument("--format", default="text", choices=FORMATS, help="How the answers are written.")
    return parser.parse_args()


def audio_files(paths: Iterable[Path]) -> list[Path]:
    """The files among `paths`, and all audio files below the folders among them, sorted.

    Raises:
        UserError: there is none.
    """
    suffixes = {f".{name.lower()}" for name in (*soundfile.available_formats(), "aif", "aifc", "opus", "oga")} - {
        ".raw"
    }
    files = []
    for path in paths:
        below = sorted(file for file in path.rglob("*") if file.suffix.lower() in suffixes and file.is_file())
        files += below if path.is_dir() else [path]
    if not files:
        raise UserError(f"{', '.join(map(str, paths))}: no audio file there")
    return files


def last_run() -> str:
    """The folder in `runs/` whose run finished last.

    Raises:
        UserError: there is none.
    """
    finished = sorted(RUNS.rglob("results.json"), key=lambda file: file.stat().st_mtime)
    if not finished:
        raise UserError("--model: no finished run in runs/; name a folder or Hub id")
    print(f"model: {finished[-1].parent}", file=sys.stderr)
    return str(finished[-1].parent)


def load(name: str) -> tuple[SerMtlModel, Wav2Vec2Processor]:
    """A trained model, ready to answer, on the GPU where there is one.

    Raises:
        UserError: it cannot be loaded.
    """
    with hub_errors(f"--model {name}"):
        if AutoConfig.from_pretrained(name).model_type != SerMtlModel.config_class.model_type:
            raise UserError(f"--model {name}: is not a model of this project")
        processor = Wav2Vec2Processor.from_pretrained(name)
        model = SerMtlModel.from_pretrained(name)
    return model.eval().to("cuda" if torch.cuda.is_available() else "cpu"), processor


def predict(
    files: list[Path], model: SerMtlModel, processor: Wav2Vec2Processor, broken: list[Path]
) -> Iterator[tuple[Path, dict]]:
    """What is heard in each file, in their order; those without an answer go into `broken`."""
    with tqdm(total=len(files), unit=" files", disable=None) as bar:
        for chunk in decoded(files, broken):
            answers = infer(model, processor, [samples for _, samples in chunk])
            yield from ((file, answer) for (file, _), answer in zip(chunk, answers, strict=True))
            bar.update(len(chunk))


def decoded(files: list[Path], broken: list[Path]) -> Iterator[list[tuple[Path, np.ndarray]]]:
    """The files and their samples, int16 at 16 kHz, as many at a time as fit into `AT_ONCE`."""
    chunk: list[tuple[Path, np.ndarray]] = []
    for file in files:
        try:
            chunk.append((file, utterance(file)))
        except UserError as error:
            broken.append(file)
            tqdm.write(str(error), file=sys.stderr)
        if sum(len(samples) for _, samples in chunk) >= AT_ONCE:
            yield chunk
            chunk = []
    yield chunk


def utterance(file: Path) -> np.ndarray:
    """The samples of one file, int16 at 16 kHz.

    Raises:
        UserError: it cannot be read, or is too long to be one utterance.
    """
    samples = decode(file)
    if len(samples) > LONGEST * SAMPLING_RATE:
        raise UserError(
            f"{file}: {len(samples) / SAMPLING_RATE / 60:.1f} minutes long; the model hears one utterance, of "
            f"{LONGEST // 60} minutes at most: cut it"
        )
    return samples


if __name__ == "__main__":
    command_line(main)
