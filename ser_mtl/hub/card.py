"""The model card of a run, README.md of its folder, made only from results.json.

What the results hold is shown as it is: it passes through `markdown` before it comes into the text.
"""

import json
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id
from markupsafe import Markup

from ser_mtl import __version__
from ser_mtl.corpora.description import DESCRIBED, read_description
from ser_mtl.evaluation.results import (
    NO_TEST,
    line_note,
    part_of,
    results_frame,
    shared_speakers_note,
    transcription_note,
)
from ser_mtl.hub.complete import TRAINED, holds_adapters, selection_of
from ser_mtl.hub.completion import AS_IT_IS, Completion
from ser_mtl.hub.names import NOTE, PRIVATE_MODEL
from ser_mtl.metrics import METRICS
from ser_mtl.safe_text import markdown, printable
from ser_mtl.tasks import CLASSIFICATION_TASKS, TASKS, VALUE_TASKS

_CORPUS_NAMES = {"iemocap": "IEMOCAP", "demo": "the synthesised demo corpus"}
_IEMOCAP_TERMS = "https://sail.usc.edu/iemocap/iemocap_release.htm"
_LICENCE_DATA = {"iemocap": {"license": "other", "license_name": "iemocap", "license_link": _IEMOCAP_TERMS}}
_LICENCE_TEXTS = {
    "iemocap": "IEMOCAP is released for research by the University of Southern California, under "
    f"[its own terms]({_IEMOCAP_TERMS}). Read them before you publish or use a model that was trained on it.",
    "demo": "The demo corpus is synthesised speech without terms of its own; those of the encoder apply.",
}
_UNKNOWN_LICENCE = (
    "The model was trained on a folder of recordings whose licence this card does not know. Their terms apply: state "
    "them here before you publish."
)

ORACLE_WARNING = """\
> [!WARNING]
> The checkpoint was chosen on the test fold (`--selection oracle`). The metrics below are therefore optimistic:
> they do not estimate how the model does on new speakers, and only compare with metrics chosen in the same way."""

TESTED = ("4.50", "5.24")
"""The oldest and the newest transformers that models were tried on, by tests/compatibility.py."""

_LOAD = """\
## How to use it

Tested with transformers {oldest} to {newest}, and the PEFT of their time:

```bash
pip install torch torchaudio soundfile "transformers>={oldest}" peft
```

```python
import soundfile
import torch
import torchaudio
from transformers import {imports}

name = {name}
processor = AutoProcessor.from_pretrained(name, trust_remote_code=True)
{load}

waveform, rate = soundfile.read("speech.wav", dtype="float32", always_2d=True)  # any rate, mono or stereo
waveform = torchaudio.functional.resample(torch.from_numpy(waveform).mean(dim=1), rate, 16_000).numpy()
with torch.inference_mode():
    output = model(**processor(waveform, sampling_rate=16_000, return_tensors="pt")){logits}
{answers}
```"""
_LOAD_PLAIN = "model = AutoModelForAudioClassification.from_pretrained(name, trust_remote_code=True).eval()"
_LOAD_ON_ENCODER = """\
config = AutoConfig.from_pretrained(name, trust_remote_code=True)
model = AutoModelForAudioClassification.from_pretrained(name, config=config, trust_remote_code=True).eval()"""
_ANSWER = """\
for label, probability in zip(model.config.labels["{task}"], output.{logits}[0].softmax(-1).tolist()):
    print(f"{{label}} {{probability:.2f}}")"""
_LOGITS = "  # `logits`: emotion, calibrated"
_VALUE = """print(f"{task} {{output.task_values['{task}'].item():.2f}}")"""
_TRANSCRIPT = "print(processor.batch_decode(output.asr_logits.argmax(-1))[0])"
_FROZEN_TRANSCRIPT = """\
The adapters move the input of the CTC head, so `output.asr_logits` are of no use. The transcript of the pipeline
"speech-emotion" comes from the frozen model under the adapters."""
_NO_TRANSCRIPT = """\
If the output holds `asr_logits`, they are of no use: the layers under the CTC head were trained on. Take transcripts
from the model that this one was trained on."""
_PIPELINE = """\
With a pipeline of its own: files, or `(samples, rate)`, of any rate, any number of channels and any length give all
tasks{probabilities}{transcripts}:

```python
from transformers import pipeline

recognize = pipeline("speech-emotion", model={name}, trust_remote_code=True)
print(recognize("speech.wav"))
```{stock}"""
_STOCK = "\n\nThe stock pipeline `audio-classification` gives the emotion of single utterances, calibrated too."
_PEFT = """\
The repository holds adapters; their base is loaded from {base_shown}, at the commit that they were trained on. With
only PEFT:

```python
from peft import PeftModel
from transformers import AutoConfig, AutoModelForAudioClassification

config = AutoConfig.from_pretrained({name}, trust_remote_code=True)
base = AutoModelForAudioClassification.from_pretrained(
    {base}, revision={revision}, config=config, trust_remote_code=True{new_heads}
)
model = PeftModel.from_pretrained(base, {name}).eval()
```

- Loaded adapters are frozen. To go on training, pass `is_trainable=True`; `save_pretrained` and `push_to_hub` then
  write adapters again.
- The Auto classes run the code of the base. To run always the same code, pass as `code_revision` the `revision` above.
- For an earlier commit of the adapters, pass `adapter_kwargs={{"revision": "..."}}`: transformers looks for a plain
  `revision` in the base. For a pipeline, publish the merged model (`ser-mtl publish --merge`)."""

_PINNED = """\
To load this very model for years, pass `revision="..."` to each `from_pretrained`: a commit of this repository, from
*Files and versions*."""

_PREPARATION = """\
This model does not recognise emotions: it prepares the encoder for a second stage (`run_stage2.py --stage1`)."""

_CONFUSION = "![Confusion matrix of the test utterances](confusion_matrix.png)"
_CURVES = "![Training losses and metrics over the epochs](training_curves.png)"
_RELIABILITY = "![How often an emotion was right, by its probability](reliability.png)"
_VALUES_FIGURE = "![Predicted over annotated values of the test utterances](values.png)"

REFIT = "Then trained again, on training and development set, for as many epochs (`--refit`)."

_EXPLAINED = {
    "UA": "the mean of the per-class recalls",
    "WA": "the accuracy",
    "F1": "the mean of the per-class F1 scores",
    "WER": "the word error rate",
    "CCC": "the concordance correlation coefficient",
}

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
        _use(results, hub_model_id or "path/to/this/folder") if answers_of(results) else _PREPARATION,
        _metrics(results),
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


def hub_id(model: str) -> str | None:
    """`model` if it reads as namespace/name and is not a folder here, which `from_pretrained` would prefer."""
    try:
        validate_repo_id(model)
    except HFValidationError:
        return None
    return model if "/" in model and not Path(model).exists() else None


def metadata(results: dict, name: str, part: str, completion: Completion = AS_IT_IS) -> ModelCardData:
    """The metadata of a card, for the Hub.

    Args:
        results: the content of `results.json`.
        name: the model's name.
        part: the part of the corpus that was scored, such as "fold 1".
        completion: what the user adds; it wins.
    """
    corpus, adapters = results["corpus"], holds_adapters(results)
    base = hub_id(results.get("stage1", results["encoder"]))
    evaluations = _evaluations(results, part, completion.datasets)
    more: dict[str, Any] = (
        {"license": completion.license} if completion.license else dict(_LICENCE_DATA.get(corpus, {}))
    )
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
    """The metrics for the Hub's index, which has an entry for each task because each has a configuration of its own."""
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
    """The tasks whose answers the model is for; none for one that prepares the encoder for a second stage."""
    return [task for task in ("emotion", *VALUE_TASKS) if task in results["tasks"]]


def _title(results: dict) -> str:
    return f"Speech emotion recognition, stage {results['stage']}, {part_of(results)} of {corpus_name(results)}"


def _summary(results: dict) -> str:
    kind = "Adapters" if holds_adapters(results) else "A model"
    base = f"the stage-1 model {_named(results['stage1'])}" if "stage1" in results else _named(results["encoder"])
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


def _use(results: dict, name: str) -> str:
    """Programs that load the model and answer `speech.wav`."""
    base = results.get("base") if holds_adapters(results) else None
    on_encoder = base is not None and base["repo_id"] == results["encoder"]
    heads = [task for task in CLASSIFICATION_TASKS if task in results["tasks"]]
    # `logits` are emotion's, calibrated.
    answers = [_ANSWER.format(task=t, logits="logits" if t == "emotion" else f'task_logits["{t}"]') for t in heads]
    answers += [_VALUE.format(task=task) for task in VALUE_TASKS if task in results["tasks"]]
    quoted, emotion = _quoted(name), "emotion" in results["tasks"]
    if "asr" in results["tasks"]:
        answers.append(_TRANSCRIPT)
    load = _LOAD.format(
        name=quoted,
        imports=", ".join(
            [*(["AutoConfig"] if on_encoder else []), "AutoModelForAudioClassification", "AutoProcessor"]
        ),
        load=_LOAD_ON_ENCODER if on_encoder else _LOAD_PLAIN,
        answers="\n".join(answers),
        logits=_LOGITS if emotion else "",
        oldest=TESTED[0],
        newest=TESTED[1],
    )
    parts = [load]
    transcribes = results.get("base_transcribes", "asr" in results["test"].get("all", {}))
    frozen_transcribes = holds_adapters(results) and results["stage"] == 2 and transcribes
    if not on_encoder:
        transcripts = ", and the transcript" if "asr" in results["tasks"] or frozen_transcribes else ""
        calibrated = {"probabilities": ", with calibrated probabilities", "stock": _STOCK} if emotion else {}
        calibrated = {"probabilities": "", "stock": ""} | calibrated
        parts.append(_PIPELINE.format(name=quoted, transcripts=transcripts, **calibrated))
        if base is not None:
            new_heads = ", ignore_mismatched_sizes=True" if "new_heads" in results else ""
            places = {"new_heads": new_heads, "base": _quoted(base["repo_id"]), "revision": _quoted(base["revision"])}
            parts.append(_PEFT.format(name=quoted, base_shown=markdown(base["repo_id"]), **places))
        else:
            parts.append(_PINNED)
    if results["stage"] == 2 and "asr" not in results["tasks"]:
        parts.append(_FROZEN_TRANSCRIPT if frozen_transcribes else _NO_TRANSCRIPT)
    return "\n\n".join(parts)


def _quoted(name: str) -> str:
    """A name as a string of Python, in one line."""
    return json.dumps(name)


def _metrics_without_test(results: dict) -> str:
    """What stands in the place of figures for a model that was trained on everything."""
    parts = [f"## Metrics\n\n{markdown(NO_TEST)}"]
    if folds := results.get("folds"):
        parts += [
            "Models that were trained in the same way, each without a part of the corpus that it was then tested on "
            f"({markdown(', '.join(folds['names']))}), had as a mean, in percent:",
            metrics_table(folds),
            explanation(folds).strip(),
        ]
    else:
        parts.append(
            f"To get figures, train the folds: `run_stage{results['stage']}.py` with `--fold 1` to `--fold 5`, and "
            "otherwise the same flags. The next publication of this model then has their mean here."
        )
    if dev := results.get("dev"):
        chosen = ", by which the epoch was chosen, so that it is optimistic" if results["selection"] == "dev" else ""
        parts += [f"On the development set{chosen}, in percent:", metrics_table({"test": dev})]
    if "temperature" in (fitted := results.get("calibration", {})):
        temperature = f"{fitted['temperature']:.2f}"
        parts.append(f"Emotion's probabilities are calibrated with the temperature {temperature}{_fitted_on(fitted)}.")
    return "\n\n".join(filter(None, parts))


def _metrics(results: dict) -> str:
    if not results["test"]:
        return _metrics_without_test(results)
    notes = [
        f"Checkpoint: {selection_of(results)}.",
        REFIT if results.get("refit") else None,
        _held_out(results),
        _near_duplicates(results),
        _calibration(results),
        transcription_note(results),
        line_note(results),
        NOTE if results.get("hashed_names") else None,
        "One fold and one seed; judge the method by its means over the folds.",
    ]
    listed = "\n".join(f"- {note}" for note in notes if note)
    return f"""\
## Metrics

On the test utterances of fold {markdown(results["fold"])}, all and by style, in percent.

{metrics_table(results)}

{explanation(results)}{listed}"""


def explanation(results: dict) -> str:
    """What the metrics in the table are, as a paragraph; nothing if it has none."""
    words = {word for title in results_frame(results).columns for word in title.replace(",", "").split()}
    explained = [f"{name} {text}" for name, text in _EXPLAINED.items() if name in words]
    return f"{', '.join(explained).replace(' ', ' is ', 1)}.\n\n" if explained else ""


def _held_out(results: dict) -> str | None:
    if note := shared_speakers_note(results):
        return note
    speakers = results.get("held_out_speakers", [])
    if not speakers:
        return None
    named = f" ({markdown(', '.join(speakers))})" if len(speakers) <= 12 else ", listed in `results.json`"
    return f"Test speakers, none of them in training: {len(speakers)}{named}."


def _near_duplicates(results: dict) -> str | None:
    counted = results.get("leaks", {}).get("near_duplicates", {}).get("all")
    if not counted:
        return None
    return f"Test transcripts with a near-duplicate in training: {100 * counted['share']:.1f} % of {counted['n']}."


def _calibration(results: dict) -> str | None:
    calibration = results.get("calibration", {})
    if "test" not in calibration:
        return None
    error = f"expected calibration error {100 * calibration['test']['before']:.1f} %"
    if "temperature" not in calibration:
        return f"Emotion's probabilities are not calibrated, for want of a development set: {error}."
    return (
        f"Emotion's probabilities are calibrated with the temperature {calibration['temperature']:.2f}"
        f"{_fitted_on(calibration)}: {error} without it, {100 * calibration['test']['after']:.1f} % with it. `logits` "
        '(and so pipelines) have it, `task_logits["emotion"]` are without it.'
    )


def _fitted_on(calibration: dict) -> str:
    counts = calibration.get("fitted_on")
    if counts is None:
        return ", fitted on the development set"
    return (
        f", fitted on the {counts['utterances']} development utterances ({counts['speakers']} speakers, "
        f"{counts['also_in_training']} of them also in training)"
    )


def _training(results: dict) -> str:
    sizes = results.get("sizes", {})
    versions = results.get("versions", {})
    merged = ", merged afterwards" if results.get("merged") else ""
    rows = {
        "encoder": _named(results["encoder"]),
        "stage-1 model": _named(results["stage1"]) if "stage1" in results else None,
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
    return f"## Training\n\n| | |\n|---|---|\n{table}\n\n`args.json` holds every setting, `split.json` every utterance."


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


def metrics_table(results: dict) -> str:
    """The metrics of all utterances and of each style, as a table."""
    frame = results_frame(results)
    rows = [[group, *values] for group, values in zip(frame.index, frame.to_numpy(), strict=True)]
    return markdown_table(["utterances", *frame.columns], rows)


def markdown_table(head: list[str], rows: list[list[str]]) -> str:
    """A table in Markdown; all columns except the first are right-aligned. Cells are shown as they are."""
    ruler: list[str] = [Markup(cell) for cell in ("---", *["---:"] * (len(head) - 1))]
    return "\n".join(f"| {' | '.join(markdown(cell) for cell in line)} |" for line in [head, ruler, *rows])


def licence(results: dict, completion: Completion = AS_IT_IS) -> str:
    """The section on the terms of the model and its corpus."""
    own = f"The model is published under {markdown(completion.license)}." if completion.license else None
    return "\n\n".join(
        ["## Licence", *filter(None, (own, _terms(results["corpus"], None if own else _UNKNOWN_LICENCE)))]
    )


def _terms(corpus: str, otherwise: str | None) -> str | None:
    if corpus in DESCRIBED and (description := read_description(corpus)).address:
        terms = f"{description.title} has terms of its own: {description.licence} ({description.address})."
        return f"{markdown(terms)} Read them before you publish or use a model that was trained on it."
    return _LICENCE_TEXTS.get(corpus, otherwise)


def corpus_name(results: dict) -> str:
    """The name of the corpus, for readers."""
    if (name := results["corpus"]) in DESCRIBED:
        return read_description(name).title
    return _CORPUS_NAMES.get(name, "a folder of labelled recordings")


def _named(model: str) -> Markup:
    """A link for a model on the Hub; a folder is named without the path to it."""
    if model == PRIVATE_MODEL:
        return Markup(model)
    return repository_link(model) if hub_id(model) else Markup(f"{markdown(Path(model).name)} (a local folder)")


def repository_link(repo_id: str) -> Markup:
    """A link in Markdown to a repository on the Hub."""
    return Markup(f"[{markdown(repo_id)}](https://huggingface.co/{repo_id})")
