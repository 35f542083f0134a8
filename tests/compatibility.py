"""Which transformers a published model loads on: `python tests/compatibility.py` tries versions and prints a table.

For each version an environment is made in a temporary folder: transformers, and the PEFT of its time; everything else,
torch above all, is shared with the environment that this program runs in. There, small models of every encoder family,
made here, are loaded from a folder and from a Hub on loopback. A cell of the table is the largest difference from the
logits here. Exit code 1 if one is above 1e-5.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import traceback
import venv
from collections.abc import Callable, Iterator
from functools import partial
from math import inf
from pathlib import Path
from site import getsitepackages

VERSIONS = {
    "4.50.0": "0.15.2",
    "4.57.6": "0.18.1",
    "5.0.0": "0.18.1",
    "5.8.0": "0.19.1",
    "5.14.0": "0.20.0",
    "5.23.0": "0.21.2",
    "5.24.0": "0.21.2",
}
"""Versions of transformers, oldest first, with the PEFT of their time. The last one is the newest."""
TOLERANCE = 1e-5
KINDS = ("stage 1", "stage 2", "merged")
PIPELINES = {"pipeline": "audio-classification", "speech-emotion": "speech-emotion"}
"""Columns of the table, and the tasks that they try."""
COLUMNS = (*KINDS, "PEFT", *PIPELINES, "saved again")
TEMPERATURE = 1.7


# ---------------------------------------------------------------------------------------------------- in each version
# What follows runs in the environments too: it knows nothing of this project.


def trials(name: Callable[[str], str], expected: dict) -> Iterator[tuple[str, Callable[[], float]]]:
    """What is tried with the models of a family.

    Args:
        name: from a kind of model to its folder or Hub id.
        expected: what `outputs` and `probabilities` give where the models were made.

    Yields:
        A column of the table, and a function that returns the largest difference from what is expected.
    """
    for kind in KINDS:
        yield kind, partial(loaded, name(kind), expected[kind])
        for column, task in PIPELINES.items():
            yield column, partial(piped, task, name(kind), expected[f"{column} {kind}"])
        yield "saved again", partial(saved_again, name(kind), expected[kind])
    yield "PEFT", partial(adapted, name("stage 1"), name("stage 2"), expected["stage 2"])


def loaded(name: str, expected: list) -> float:
    """The Auto class."""
    model = auto(name)
    if model.config.temperature != TEMPERATURE:
        raise ValueError(f"temperature {model.config.temperature} in place of {TEMPERATURE}")
    return difference(outputs(model), expected)


def saved_again(name: str, expected: list) -> float:
    """What the Auto class loaded, saved and loaded again."""
    with tempfile.TemporaryDirectory() as folder:
        auto(name).save_pretrained(folder)
        return difference(outputs(auto(folder)), expected)


def adapted(stage1: str, stage2: str, expected: list) -> float:
    """PEFT alone, as the card says."""
    from peft import PeftModel
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(stage2, trust_remote_code=True)
    return difference(outputs(PeftModel.from_pretrained(auto(stage1, config=config), stage2)), expected)


def piped(task: str, name: str, expected: list) -> float:
    """A pipeline, the stock one or ours."""
    return difference(answered(task, name), expected)


def auto(name: str, **more):
    """The model, through the Auto class."""
    from transformers import AutoModelForAudioClassification

    return AutoModelForAudioClassification.from_pretrained(name, trust_remote_code=True, **more)


def outputs(model) -> list:
    """All logits for two noises, the second one padded."""
    import torch

    noise = torch.randn(2, 6000, generator=torch.Generator().manual_seed(0))
    mask = torch.ones(2, 6000, dtype=torch.long)
    mask[1, 4000:] = 0
    with torch.inference_mode():
        output = model.eval()(input_values=noise * mask, attention_mask=mask)
    real = torch.arange(output.asr_logits.shape[1]) < output.frame_lengths[:, None]
    return [*output.task_logits.values(), output.asr_logits[real]]


def answered(task: str, name: str) -> list:
    """What a pipeline says of a noise: probabilities in the labels' order; and the characters of the transcript."""
    import torch
    from transformers import pipeline

    noise = torch.randn(6000, generator=torch.Generator().manual_seed(0)).numpy() / 10
    answer = pipeline(task, model=name, trust_remote_code=True)({"raw": noise, "sampling_rate": 16_000})
    if task == "audio-classification":
        return [torch.tensor([part["score"] for part in sorted(answer, key=lambda part: part["label"])])]
    parts = [list(part["probabilities"].values()) for part in answer.values() if isinstance(part, dict)]
    return [*map(torch.tensor, parts), torch.tensor([*map(ord, answer.get("transcript", ""))])]


def difference(found: list, expected: list) -> float:
    """The largest difference between two lists of tensors."""
    return max(float((a - b).abs().max()) for a, b in zip(found, expected, strict=True) if a.numel() + b.numel())


def check(folder: Path) -> None:
    """In an environment: load all models of `folder`, and write the row of the table, a cell a column, as JSON."""
    import torch

    row = dict.fromkeys(COLUMNS, 0.0)
    for family, expected in torch.load(folder / "expected.pt").items():
        for place in (str(folder / family), f"ada/{family}"):
            for column, trial in trials(lambda kind, place=place: f"{place}-{kind.replace(' ', '')}", expected):
                try:
                    row[column] = max(row[column], trial())
                except Exception:
                    traceback.print_exc()
                    row[column] = inf
    print(json.dumps(row))


# ------------------------------------------------------------------------------------------------------- in this one


def make_models(folder: Path) -> None:
    """Write the models of every family to `folder` and to the Hub, and what they answer."""
    import torch
    from helpers.encoders import ENCODERS
    from huggingface_hub import HfApi

    found = {}
    for number, encoder in enumerate(ENCODERS):
        family = f"family{number}"
        models = models_of(encoder, folder / family)
        expected = {kind: outputs(model) for kind, model in models.items()}
        for kind in KINDS:
            run = folder / f"{family}-{kind.replace(' ', '')}"
            expected |= {f"{column} {kind}": answered(task, str(run)) for column, task in PIPELINES.items()}
            HfApi().create_repo(f"ada/{run.name}")
            commit = HfApi().upload_folder(
                repo_id=f"ada/{run.name}", folder_path=run, ignore_patterns="adapter_config*"
            )
            if kind == "stage 1":
                base = {"base_model_name_or_path": f"ada/{run.name}", "revision": commit.oid}
        adapter = json.loads((folder / f"{family}-stage2" / "adapter_config.json").read_text()) | base
        HfApi().upload_file(
            path_or_fileobj=json.dumps(adapter).encode(),
            path_in_repo="adapter_config.json",
            repo_id=f"ada/{family}-stage2",
        )
        found[family] = expected
    torch.save(found, folder / "expected.pt")


def models_of(encoder: str, path: Path) -> dict:
    """Write models on an encoder to `path`-stage1, `path`-stage2 and `path`-merged. Returns them, by kind."""
    import torch
    from helpers.encoders import all_tasks_config
    from transformers import Wav2Vec2CTCTokenizer, Wav2Vec2FeatureExtractor, Wav2Vec2Processor, set_seed

    from modeling_ser_mtl import SerMtlModel
    from ser_mtl.training.adapters import attach_adapters
    from ser_mtl.training.saving import save_model

    set_seed(0)
    path.mkdir()
    vocabulary = path / "vocab.json"
    vocabulary.write_text(json.dumps({c: i for i, c in enumerate(["<pad>", "<unk>", "|", *"abcdefghi"])}))
    tokenizer = Wav2Vec2CTCTokenizer(str(vocabulary), pad_token="<pad>", unk_token="<unk>")
    processor = Wav2Vec2Processor(Wav2Vec2FeatureExtractor(return_attention_mask=True), tokenizer)
    stage1, stage2, merged = (path.with_name(f"{path.name}-{kind}") for kind in ("stage1", "stage2", "merged"))
    model = SerMtlModel(all_tasks_config(encoder, temperature=TEMPERATURE))
    save_model(model, processor, stage1)
    config = all_tasks_config(
        encoder, tasks=["emotion", "gender", "style"], fusion="concat", bottleneck_dim=8, temperature=TEMPERATURE
    )
    adapted = attach_adapters(SerMtlModel.from_pretrained(stage1, config=config), str(stage1), 4, 4)
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.normal_(std=0.1)
    save_model(adapted, processor, stage2)
    models = {"stage 1": model, "stage 2": SerMtlModel.from_pretrained(stage2)}
    models["merged"] = adapted.merge_and_unload()
    save_model(models["merged"], processor, merged)
    return models


def environment(version: str, peft: str, folder: Path) -> Path:
    """Make an environment with this transformers and this PEFT that shares all else. Returns its Python."""
    venv.create(folder)
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    site = subprocess.check_output([python, "-c", "import site; print(site.getsitepackages()[0])"], text=True)
    (Path(site.strip()) / "shared.pth").write_text("\n".join(getsitepackages()))
    # pip warns that what is shared wants other versions; nothing here uses it.
    command = [sys.executable, "-m", "pip", "--python", python, "install", f"transformers=={version}", f"peft=={peft}"]
    installed = subprocess.run(command, capture_output=True, text=True)
    if installed.returncode:
        raise SystemExit(installed.stderr[-2000:])
    return python


def largest_differences(version: str, folder: Path, models: Path) -> list[float]:
    """Try a version. Returns the largest difference in each column, infinite where something does not load."""
    python = environment(version, VERSIONS[version], folder / version)
    home = {"HF_HOME": str(folder / "home" / version)}
    command = [python, "-I", __file__, "--check", models]
    ended = subprocess.run(command, env=os.environ | home, cwd=folder, stdout=subprocess.PIPE, text=True, check=True)
    return list(json.loads(ended.stdout.splitlines()[-1]).values())


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--versions", nargs="+", default=list(VERSIONS), choices=VERSIONS, help="only these")
    parser.add_argument("--check", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.check:
        check(arguments.check)
        return 0
    sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parents[1])]
    import conftest  # noqa: F401  (a Hub on loopback, and caches in a folder that goes)

    print("| transformers | PEFT |", " | ".join(COLUMNS), "|")
    print("|---|---|", "---:|" * len(COLUMNS), sep="")
    with tempfile.TemporaryDirectory() as folder:
        models = Path(folder) / "models"
        models.mkdir()
        make_models(models)
        worst = 0.0
        for version in arguments.versions:
            row = largest_differences(version, Path(folder), models)
            cells = ["fails" if value == inf else f"{value:.0e}" for value in row]
            print("|", " | ".join([version, VERSIONS[version], *cells]), "|", flush=True)
            worst = max(worst, *row)
    return int(worst > TOLERANCE)


if __name__ == "__main__":
    sys.exit(main())
