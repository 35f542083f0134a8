"""The section of a model card on use: programs that load the model and answer a recording."""

import json

from ser_mtl.hub.complete import holds_adapters
from ser_mtl.safe_text import markdown
from ser_mtl.tasks import CLASSIFICATION_TASKS, VALUE_TASKS

TESTED = ("4.50", "5.24")
"""The oldest and the newest transformers that models were tried with, by tests/compatibility.py."""

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
If the output holds `asr_logits`, they are of no use: stage 2 went on training the layers under the CTC head. Take
transcripts from the stage-1 model."""

_PIPELINE = """\
The model has a pipeline of its own. It takes files, or `(samples, rate)`, of any rate, number of channels and length,
and answers all tasks{probabilities}{transcripts}:

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

- Loaded adapters are frozen. To train them further, pass `is_trainable=True`; `save_pretrained` and `push_to_hub` then
  write adapters again.
- The Auto classes run the code of the base. To always run the same code, pass the `revision` above as `code_revision`.
- For an earlier commit of the adapters, pass `adapter_kwargs={{"revision": "..."}}`: transformers looks for a plain
  `revision` in the base. For a pipeline, publish the merged model (`ser-mtl publish --merge`)."""

_PINNED = """\
To load exactly this model in the future too, pass `revision="..."` to each `from_pretrained`, with a commit of this
repository from *Files and versions*."""


def use(results: dict, name: str) -> str:
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
