"""The model card of a run, README.md of its folder, made only from results.json.

Everything from the results passes through `markdown`, so that it cannot act as markup.
"""

from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData
from markupsafe import Markup

from ser_mtl import __version__
from ser_mtl.evaluation.results import part_of, transcription_note
from ser_mtl.hub.card_metrics import metrics
from ser_mtl.hub.card_use import use
from ser_mtl.hub.complete import TRAINED, holds_adapters
from ser_mtl.hub.completion import AS_IT_IS, Completion
from ser_mtl.hub.licence import LICENCE_DATA, corpus_name, licence
from ser_mtl.hub.links import hub_id, named
from ser_mtl.metrics import METRICS
from ser_mtl.safe_text import markdown, printable
from ser_mtl.tasks import TASKS, VALUE_TASKS

ORACLE_WARNING = """\
> [!WARNING]
> The checkpoint was chosen on the test fold (`--selection oracle`). The metrics below are therefore optimistic:
> they do not estimate how the model does on new speakers, and only compare with metrics chosen in the same way."""

_PREPARATION = """\
This model does not recognise emotions: it prepares the encoder for a second stage (`run_stage2.py --stage1`)."""

_CONFUSION = "![Confusion matrix of the test utterances](confusion_matrix.png)"
_CURVES = "![Training losses and metrics over the epochs](training_curves.png)"
_RELIABILITY = "![How often an emotion was right, by its probability](reliability.png)"
_VALUES_FIGURE = "![Predicted over annotated values of the test utterances](values.png)"

LIMITS = """\
## Prohibited and unsuitable uses

The model predicts which of a few emotions listeners would name, in speech like that of its corpus. It does not know
what a person feels, and it is often wrong.

- Do not use it to infer the emotions of people at work or in education: in the European Union that is prohibited,
  except for medical or safety reasons (Regulation (EU) 2024/1689, the AI Act, article 5(1)(f)).
- The same regulation lists other emotion recognition among the high-risk uses (annex III), and requires that people
  exposed to it are informed (article 50(3)).
- Do not base a decision about a person on it. Expect worse results for other languages, ages and microphones, and for
  spontaneous speech."""

CITATION = """\
## Citation

```bibtex
@inproceedings{gao2024enhancing,
  title = {Enhancing Two-Stage Finetuning for Speech Emotion Recognition Using Adapters},
  author = {Gao, Yuan and Shi, Hao and Chu, Chenhui and Kawahara, Tatsuya},
  booktitle = {IEEE International Conference on Acoustics, Speech and Signal Processing (ICASSP)},
  pages = {11316--11320},
  year = {2024},
  doi = {10.1109/ICASSP48485.2024.10446645}
}
```"""

PAPER = (
    "[*Enhancing two-stage finetuning for speech emotion recognition using "
    "adapters*](https://doi.org/10.1109/ICASSP48485.2024.10446645) (Gao, Shi, Chu, Kawahara, ICASSP 2024)"
)
CODE = f"ser-mtl {__version__}"
"""The code that trained and published: this project, at its version."""


def model_card(results: dict, hub_model_id: str | None = None, completion: Completion = AS_IT_IS) -> str:
    """Write the README.md of a run: metadata for the Hub, metrics, how to load the model, its limits.

    Args:
        results: the content of `results.json`.
        hub_model_id: where the model will be published.
        completion: what the user adds.

    Returns:
        Markdown under a YAML header, without local paths.
    """
    sections = [
        f"# {markdown(_title(results))}",
        _summary(results),
        completion.text or None,
        ORACLE_WARNING if results["selection"] == "oracle" else None,
        use(results, hub_model_id or "path/to/this/folder") if answers_of(results) else _PREPARATION,
        metrics(results),
        _figures(results),
        _training(results),
        LIMITS,
        licence(results, completion),
        CITATION,
    ]
    body = "\n\n".join(section for section in sections if section)
    name = hub_model_id or f"ser-mtl-{results['corpus']}-stage{results['stage']}-{part_of(results).replace(' ', '')}"
    data = metadata(results, name, part_of(results), completion)
    return str(ModelCard(f"---\n{data.to_yaml()}\n---\n\n{body}\n"))


def metadata(results: dict, name: str, part: str, completion: Completion = AS_IT_IS) -> ModelCardData:
    """The metadata of a card, for the Hub.

    Args:
        results: the content of `results.json`.
        name: the model's name.
        part: the part of the corpus that was scored, such as "fold 1".
        completion: the user's own metadata, which take precedence.
    """
    corpus, adapters = results["corpus"], holds_adapters(results)
    base = hub_id(results.get("stage1", results["encoder"]))
    evaluations = _evaluations(results, part, completion.datasets)
    more: dict[str, Any] = {"license": completion.license} if completion.license else dict(LICENCE_DATA.get(corpus, {}))
    if base:
        more["base_model_relation"] = "adapter" if adapters else "finetune"
    data = ModelCardData(
        model_name=printable(name),
        library_name="peft" if adapters else "transformers",
        pipeline_tag="audio-classification",
        tags=["speech-emotion-recognition", "speech", "multi-task-learning", *(["lora"] if adapters else [])],
        language=completion.language or ("en" if corpus in ("iemocap", "demo") else None),
        datasets=completion.datasets,
        base_model=base,
        metrics=list(dict.fromkeys(evaluation.metric_type for evaluation in evaluations)) or None,
        eval_results=evaluations or None,
        **more,
    )
    for key, value in completion.metadata.items():
        data[key] = value
    return data


def _evaluations(results: dict, part: str, datasets: list[str] | None) -> list[EvalResult]:
    """The metrics for the Hub's index, with a `dataset_config` for each task, so that each has an entry."""
    scores = results["test"].get("all", {})
    return [
        EvalResult(
            task_type=TASKS[metric.group].hub_type,
            task_name=_task_name(metric.group),
            dataset_type=datasets[0] if datasets else printable(results["corpus"]),
            dataset_name=f"{corpus_name(results)}, {part}",
            dataset_config=metric.group,
            dataset_split="test",
            metric_type=metric.hub_type,
            metric_name=metric.long_title or metric.title,
            metric_value=scores[metric.group][metric.key],
        )
        for metric in METRICS
        if metric.group in TASKS and metric.key in scores.get(metric.group, {})
        # Otherwise the transcripts are those of the base, or none.
        if metric.group != "asr" or ("asr" in results["tasks"] and transcription_note(results) is None)
    ]


def _task_name(task: str) -> str:
    kind = "estimation" if task in VALUE_TASKS else "recognition"
    return f"{'speech' if task == 'asr' else TASKS[task].title} {kind}"


def answers_of(results: dict) -> list[str]:
    """The tasks that the model is used for; empty for one that only prepares the encoder for a second stage."""
    return [task for task in ("emotion", *VALUE_TASKS) if task in results["tasks"]]


def _title(results: dict) -> str:
    return f"Speech emotion recognition, stage {results['stage']}, {part_of(results)} of {corpus_name(results)}"


def _summary(results: dict) -> str:
    kind = "Adapters" if holds_adapters(results) else "A model"
    base = f"the stage-1 model {named(results['stage1'])}" if "stage1" in results else named(results["encoder"])
    lines = [
        f"{kind} for speech emotion recognition on {base}, trained on {corpus_name(results)} after "
        f"{PAPER}, with {CODE}. Its own code is [modeling_ser_mtl.py](modeling_ser_mtl.py)."
    ]
    for task, labels in results.get("labels", {}).items():
        lines.append(f"- {markdown(task)}: {markdown(', '.join(labels))}")
    lines += [f"- {task}: a value, on the scale of the corpus" for task in VALUE_TASKS if task in results["tasks"]]
    if "size" in results:
        size = results["size"]
        of = ", besides those of the base" if holds_adapters(results) else ""
        lines.append(f"- size: {size['parameters'] / 1e6:.1f} million parameters, {size['megabytes']:.1f} MB{of}")
    return lines[0] + ("\n\n" + "\n".join(lines[1:]) if lines[1:] else "")


def _training(results: dict) -> str:
    sizes = results.get("sizes", {})
    versions = results.get("versions", {})
    merged = ", merged afterwards" if results.get("merged") else ""
    rows = {
        "encoder": named(results["encoder"]),
        "stage-1 model": named(results["stage1"]) if "stage1" in results else None,
        "adapters": f"on {results['base']['repo_id']} at {results['base']['revision']}" if "base" in results else None,
        "labels that the stage-1 model did not have": ", ".join(results.get("new_heads", [])),
        "tasks": ", ".join(results["tasks"]),
        "trained": Markup(f"{TRAINED[results['trainable']]} (`--trainable {results['trainable']}`){merged}"),
        "class weights": _class_weights(results),
        "utterances": ", ".join(f"{name} {size}" for name, size in sizes.items()),
        "augmentation": ", ".join(results.get("augment", [])),
        "seed": results["seed"],
        "epoch kept": Markup(f"{results['epoch']:g} (`--selection {results['selection']}`)"),
        "stopped early": f"after epoch {results['stopped_at_epoch']:g}" if "stopped_at_epoch" in results else None,
        "minutes": results.get("minutes"),
        "speed": f"{results['audio_seconds_per_second']} seconds of audio per second",
        "commit": results["commit"],
        "versions": ", ".join(f"{package} {version}" for package, version in versions.items()),
    }
    table = "\n".join(f"| {name} | {markdown(value)} |" for name, value in rows.items() if value not in (None, ""))
    files = "`args.json` holds every setting, `split.json` the utterances of each part."
    return f"## Training\n\n| | |\n|---|---|\n{table}\n\n{files}"


def _class_weights(results: dict) -> str:
    """The weights of `--class_weights balanced`, by task."""
    tasks = results.get("class_weights", {}).items()
    return "; ".join(f"{task}: {', '.join(f'{label} {w:.2f}' for label, w in one.items())}" for task, one in tasks)


def _figures(results: dict) -> str | None:
    values = _VALUES_FIGURE if {*VALUE_TASKS} & {*results["tasks"]} else None
    if "emotion" not in results["tasks"]:
        return f"{_CURVES}\n\n{values}" if values and results["test"] else _CURVES if values else None
    if not results["test"]:
        return _CURVES
    figures = [_CONFUSION, _CURVES, _RELIABILITY if "calibration" in results else None, values]
    return "\n\n".join(filter(None, figures))
