"""The answers of a trained model to labelled utterances, and their scores: `results.json` of an evaluation."""

import shlex
from collections.abc import Iterable, Sequence, Set
from importlib.metadata import version
from typing import Annotated, NamedTuple, NotRequired

import numpy as np
from datasets import Dataset
from pydantic import AfterValidator
from tqdm import tqdm
from typing_extensions import TypedDict

from recordings_ser_mtl import SAMPLING_RATE
from ser_mtl.corpora.audio import with_samples
from ser_mtl.corpora.leaks import audio_digests
from ser_mtl.corpora.loading import name_with_folders
from ser_mtl.corpora.names import near_equal
from ser_mtl.cross.choice import Chosen, Part, choose, known_by_audio
from ser_mtl.cross.heard import Heard, heard_by
from ser_mtl.errors import UserError, notice
from ser_mtl.evaluation.calibration import BINS, calibrated, emotion_probabilities, reliability
from ser_mtl.evaluation.metric_intervals import intervals_over_speakers
from ser_mtl.evaluation.predictions import prediction_rows, references_and_predictions
from ser_mtl.evaluation.results import Calibration, Count, Intervals, Leaks, Results, Scores, Text, has_all
from ser_mtl.evaluation.scores import SerMtlMetric, metrics_by_group
from ser_mtl.files import read_json
from ser_mtl.inference.recognizer import Recognizer, load, transcript_source
from ser_mtl.tasks import TASKS
from ser_mtl.training.heard import file_of
from ser_mtl.training.run_folder import PACKAGES, Record, commit


class System(TypedDict):
    """The model of an evaluation, as far as its files describe it."""

    trained_on: Text
    stage: int | None
    encoder: Text | None
    tasks: list[Text]
    trainable: Text | None
    fold: int | str | None


class Evaluation(TypedDict):
    """The content of `results.json` of an evaluation."""

    model: Text
    system: System
    corpus: Text
    part: Text
    map: list[Text]
    left_out: list[Text]
    utterances: Count
    speakers: Count
    labels: dict[Text, list[Text]]
    absent: list[Text]
    checked: bool
    calibration: NotRequired[Calibration]
    leaks: NotRequired[Leaks]
    commit: Text | None
    versions: dict[Text, Text]
    test: Annotated[dict[Text, Scores], AfterValidator(has_all)]
    intervals: Intervals


class Evaluated(NamedTuple):
    """The scores of a model on a corpus, without the corpus's name, and the predictions behind them."""

    results: dict
    rows: list[dict]


def evaluate(
    model: str,
    corpus: Dataset,
    label_map: Sequence[str] = (),
    fold: int | None = None,
    part: Part | None = None,
    base: str | None = None,
    dtype: str | None = None,
    device: str | None = None,
) -> Evaluated:
    """Test a trained model on the utterances of a corpus that it was not trained on.

    Args:
        model: a run folder or Hub id; `base`, `dtype` and `device` are as for `ser_mtl.load`.
        corpus: as `ser_mtl.load_corpus` returns it.
        label_map: words of `--map`.
        fold: of the corpus, to test on.
        part: likewise: "train", "dev" or "test" of an official split, "unseen" or "all".

    Raises:
        UserError: the model or its audio cannot be read, the labels are others, or the model knows the utterances.
    """
    recognizer = load(model, device, dtype, transcript=any(corpus["text"]), base=base)
    heard = heard_by(model, base)
    for unknown in heard.unknown:
        notice(f"{unknown}: its args.json or split.json is missing: it may have been trained on this corpus")
    chosen = choose(corpus, label_map, fold, part, heard, model)
    labels = tasks_to_score(chosen.corpus, recognizer.labels, transcript_source(recognizer.model) is not None)
    chosen, decoded = _decoded(chosen, heard, part, model)
    labels = {task: classes for task, classes in labels.items() if set(decoded[TASKS[task].column]) - {None}}
    rows = answered(recognizer, decoded, labels)
    settings = {"part": chosen.part, "map": list(label_map), "left_out": chosen.left_out, "checked": not heard.unknown}
    results = {
        **{"model": model, "system": system_of(model, recognizer), **settings, "labels": labels},
        **_shared(rows, chosen.heard_speakers),
        **scores_of(rows, labels, recognizer.model.config.temperature),
        "commit": commit(),
        "versions": {package: version(package) for package in PACKAGES},
    }
    return Evaluated(results, rows)


def _decoded(chosen: Chosen, heard: Heard, part: Part | None, model: str) -> tuple[Chosen, Dataset]:
    """The utterances with their samples, checked by these too."""
    decoded = with_samples(chosen.corpus)
    chosen = known_by_audio(chosen, audio_digests(decoded), heard, part, model)
    if len(chosen.corpus) < len(decoded):
        kept = set(chosen.corpus["id"])
        decoded = decoded.select([row for row, name in enumerate(decoded["id"]) if name in kept])
    return chosen, decoded


def _shared(rows: list[dict], known: Set[str]) -> dict:
    """How many utterances of an official test set are by speakers of the training, if any are."""
    speakers = [row["speaker"] for row in rows if row["speaker"] in known]
    counts = {"speakers": len(set(speakers)), "utterances": len(speakers)}
    return {"leaks": {"near_duplicates": {}, "test_speakers_in_train": counts}} if speakers else {}


def system_of(model: str, recognizer: Recognizer) -> dict:
    """A model's training, from its `results.json` and `args.json`, which a repository may lack."""
    config = recognizer.model.config
    files = {name: file_of(model, name) for name in ("results.json", "args.json")}
    results = read_json(files["results.json"], Results) if files["results.json"] else {}
    corpus = read_json(files["args.json"], Record).get("corpus", {}) if files["args.json"] else {}
    name = corpus.get("corpus") or results.get("corpus")
    return {
        "trained_on": name_with_folders(name, corpus.get("data_dir")) if name else "unknown",
        "stage": results.get("stage"),
        "encoder": results.get("encoder") or getattr(config.encoder_config, "name_or_path", None) or None,
        "tasks": results.get("tasks") or list(config.classification_tasks),
        "trainable": results.get("trainable"),
        "fold": results.get("fold"),
    }


def tasks_to_score(corpus: Dataset, labels: dict[str, list[str]], transcribes: bool) -> dict[str, list[str]]:
    """The classes of each task of the model that the corpus has labels for.

    A task other than emotion is left out, with a notice, if the corpus has labels that the model lacks.

    Args:
        corpus: the utterances.
        labels: the classes of each task of the model; empty for a task that gives a value.
        transcribes: whether the model gives transcripts.

    Raises:
        UserError: an emotion that the model lacks, with the flag that renames it; or nothing to score.
    """
    scored = {}
    for task, known in labels.items():
        column = TASKS[task].column
        found = sorted(set(corpus[column][:]) - {None})
        unknown = [label for label in found if label not in known] if known else []  # empty: a value
        line = f"{task} {', '.join(map(repr, unknown))}: the model knows {', '.join(known)}; "
        if unknown and task == "emotion":
            raise UserError(f"{line}rename them or leave their utterances out: --map {_map_for(unknown, known)}")
        if unknown:
            flags = _map_for(unknown, known, f"{column}:")
            notice(f"{line}{task} is not scored; to score it, rename them: --map {flags}")
        elif found:
            scored[task] = known
    if not scored and not (transcribes and any(corpus["text"])):
        raise UserError("nothing to score: the corpus has labels of none of the model's tasks")
    return scored


def _map_for(unknown: Iterable[str], known: list[str], column: str = "") -> str:
    """Words for `--map`: each unknown label to the one that may mean the same, else to nothing."""
    words = []
    for label in unknown:
        near = [other for pair in near_equal([label, *known]) if label in pair for other in pair if other != label]
        words.append(f"{column}{label}={near[0] if near else ''}")
    return shlex.join(words)


def answered(recognizer: Recognizer, decoded: Dataset, labels: dict[str, list[str]]) -> list[dict]:
    """The model's answers as rows of `predictions.jsonl`, with the probabilities that `ser-mtl predict` gives.

    Args:
        recognizer: the model. It transcribes if any utterance has a text.
        decoded: utterances with `samples` at 16 kHz; those longer than two minutes are answered in segments.
        labels: the classes of each task to score.

    Raises:
        UserError: an answer is not finite.
    """
    samples = decoded.select_columns("samples").with_format("numpy", dtype=np.int16)
    recordings = ((row["samples"], SAMPLING_RATE) for row in samples)
    answers: list[dict] = []
    transcript = recognizer.transcript and any(decoded["text"])
    answering = recognizer.each(recordings, transcript=transcript, whole=True)
    with tqdm(total=len(decoded), desc="evaluating", unit=" utterances", disable=None) as bar:
        for name, answer in zip(decoded["id"][:], answering, strict=True):
            bar.update()
            if isinstance(answer, ValueError):
                raise UserError(f"{name}: {answer}")
            answers.append(answer)
    probabilities = {
        task: np.array([list(answer[task]["probabilities"].values()) for answer in answers])
        for task, classes in labels.items()
        if classes
    }
    values = {task: np.array([answer[task]["value"] for answer in answers]) for task in labels.keys() - probabilities}
    more: dict = {"values": values} if values else {}
    hypotheses = [answer["transcript"] for answer in answers] if "transcript" in answers[0] else None
    return prediction_rows(decoded, labels, probabilities, hypotheses, **more)


def scores_of(rows: list[dict], labels: dict[str, list[str]], temperature: float = 1.0) -> dict:
    """The scores of prediction rows: "test", "intervals", "calibration", "absent" and the counts of an `Evaluation`.

    Args:
        rows: of `answered`.
        labels: the classes of each task.
        temperature: of the model, by which the probabilities of `rows` are calibrated.
    """
    references, predictions = references_and_predictions(rows)
    present = {row["emotion"] for row in references}
    return {
        "utterances": len(rows),
        "speakers": len({row["speaker"] for row in rows} - {None}),
        "absent": [label for label in labels.get("emotion", []) if label not in present],
        **({"calibration": _calibration(rows, temperature)} if "emotion" in labels else {}),
        "test": metrics_by_group(SerMtlMetric(labels), predictions, references),
        "intervals": intervals_over_speakers(rows),
    }


def _calibration(rows: list[dict], temperature: float) -> dict:
    """Expected calibration error with the temperature of the model ("after"), and without it."""
    errors = [reliability(*emotion_probabilities(table)).error for table in (uncalibrated(rows, temperature), rows)]
    if temperature == 1:
        return {"bins": BINS, "test": {"before": errors[0]}}
    return {"bins": BINS, "temperature": temperature, "test": {"before": errors[0], "after": errors[1]}}


def uncalibrated(rows: list[dict], temperature: float) -> list[dict]:
    """The rows with the probabilities of emotion that the model has without its temperature."""
    return calibrated(rows, 1 / temperature)
