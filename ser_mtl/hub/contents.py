"""The files of a run that are published: no local paths and, by default, no transcripts."""

from collections.abc import Set
from pathlib import Path

from transformers.dynamic_module_utils import get_relative_import_files

import modeling_ser_mtl
from config_ser_mtl import PIPELINES
from ser_mtl.corpora.split_record import Split
from ser_mtl.evaluation.predictions import read_predictions
from ser_mtl.files import json_lines_text, json_text, read_json
from ser_mtl.hub.base import Base
from ser_mtl.hub.beside import with_folds
from ser_mtl.hub.card import model_card
from ser_mtl.hub.complete import MAYBE, NEEDED, OF_EMOTION, OF_TEST, read_complete, read_results, size_of, weights_of
from ser_mtl.hub.completion import signed
from ser_mtl.hub.links import hub_id
from ser_mtl.hub.names import (
    PRIVATE_MODEL,
    without_names_in_predictions,
    without_names_in_results,
    without_names_in_split,
)
from ser_mtl.hub.options import PRIVATE, Options
from ser_mtl.hub.record import published_as
from ser_mtl.model.saved import AdapterConfig, MethodConfig

COMPANIONS = (*NEEDED, *OF_TEST, *OF_EMOTION, *MAYBE)
"""Files beside the weights, which are the same for the model in another form."""
_WEIGHTS = frozenset({"model.safetensors", "adapter_model.safetensors", "adapter_config.json"})
_MODELS = ("encoder", "stage1", "hub_model_id", "merge_asr", "merge_emotion")
_AUTO_CLASSES = {"AutoConfig": "SerMtlConfig", "AutoModelForAudioClassification": "SerMtlModel"}


def replaced(results: dict) -> frozenset[str]:
    """Files that an earlier run may have left in the repository: weights of the other kind, and those of a test."""
    return (_WEIGHTS - set(weights_of(results))) | (set() if results["test"] else {*OF_TEST, *OF_EMOTION})


def files_to_publish(
    run: Path,
    repo_id: str,
    base: Base | None = None,
    options: Options = PRIVATE,
    hidden: Set[str] = frozenset(),
) -> dict[str, Path | bytes]:
    """The files of a repository, by name: only those of the run that a reader needs.

    Weights are safetensors; checkpoints, pickles and audio are never published. Local paths are reduced to their last
    name, or to the Hub id of the model there. The code is this project's own.

    Args:
        run: folder of a finished run.
        repo_id: the repository; the card names it.
        base: the base of the run's adapters.
        options: what is published, and to whom.
        hidden: names of models that must not appear.

    Raises:
        UserError: the run is not finished, or one of its files is missing or damaged.
    """
    own, keep_names = with_folds(run, read_complete(run)), not options.hashing
    results = public_results(own, base, keep_names, hidden) | {"size": size_of(run, own)}
    names = (*weights_of(own), *COMPANIONS)
    files = {name: run / name for name in names if (run / name).is_file()} | _code()
    on_stock = base is not None and not base.of_stage1
    files["config.json"] = _json(_public_config(run, repo_id if on_stock else None, hidden))
    files["results.json"] = _json(results)
    files["README.md"] = signed(model_card(results, repo_id, options.completion), options.completion).encode()
    files["args.json"] = _json(_without_paths(read_json(run / "args.json"), hidden))
    if own["test"]:
        files["predictions.jsonl"] = _public_predictions(
            run / "predictions.jsonl", options.with_transcripts, keep_names
        )
    if not keep_names and "split.json" in files:
        files["split.json"] = _json(without_names_in_split(read_json(run / "split.json", Split)))
    if base is not None:
        on_hub = {"base_model_name_or_path": base.repo_id, "revision": base.revision}
        files["adapter_config.json"] = _json(read_json(run / "adapter_config.json", AdapterConfig) | on_hub)
    return dict(sorted(files.items()))


def models_named(run: Path) -> set[str]:
    """The models on the Hub that a run's files name."""
    args = read_json(run / "args.json")
    groups = [read_results(run), *(group for group in args.values() if isinstance(group, dict))]
    named = {group[key] for group in groups for key in _MODELS if isinstance(group.get(key), str)}
    named.add(read_json(run / "config.json", MethodConfig)["encoder_config"].get("_name_or_path") or "")
    return {public for name in named if hub_id(public := _public_name(name))}


def public_results(results: dict, base: Base | None, keep_names: bool, hidden: Set[str] = frozenset()) -> dict:
    """The content of `results.json` without local paths, the names in `hidden` and, unless kept, those of speakers."""
    public = results | {"encoder": _public_name(results["encoder"], hidden)}
    if "stage1" in results:
        public["stage1"] = _public_name(results["stage1"], hidden)
    if base is not None:
        public["base"] = {"repo_id": base.repo_id, "revision": base.revision}
        public["stage1" if base.of_stage1 else "encoder"] = base.repo_id
    return public if keep_names else without_names_in_results(public)


def _code() -> dict[str, Path | bytes]:
    """The files that travel with a model, by name."""
    method = modeling_ser_mtl.__file__
    return {Path(file).name: Path(file) for file in (method, *get_relative_import_files(method))}


def _public_config(run: Path, adapters_on_stock: str | None, hidden: Set[str]) -> dict:
    """The config of a run; `adapters_on_stock` is the repository of adapters on a stock encoder."""
    # Without the prefix, the Auto classes would look for their code in the encoder's repository.
    code = f"{adapters_on_stock}--" if adapters_on_stock else ""
    config = read_json(run / "config.json", MethodConfig)
    encoder = config["encoder_config"]
    encoder["_name_or_path"] = _public_name(encoder.get("_name_or_path") or "", hidden)
    auto_map = {auto: f"{code}modeling_ser_mtl.{own}" for auto, own in _AUTO_CLASSES.items()}
    more = {"architectures": ["SerMtlModel"], "auto_map": auto_map, "custom_pipelines": PIPELINES}
    return config | more


def _public_name(model: str, hidden: Set[str] = frozenset()) -> str:
    """A Hub id as it is; a folder as the repository it was published as, else as its own name."""
    published = published_as(Path(model))
    name = published.repo_id if published else hub_id(model) or Path(model).name
    return PRIVATE_MODEL if name in hidden else name


def _without_paths(value: object, hidden: Set[str], model: bool = False) -> object:
    """Settings with paths reduced to their last name; those of `_MODELS` may be Hub ids."""
    if isinstance(value, dict):
        return {name: _without_paths(inner, hidden, name in _MODELS) for name, inner in value.items()}
    if isinstance(value, list):
        return [_without_paths(inner, hidden) for inner in value]
    if not isinstance(value, str) or "/" not in value:
        return value
    return _public_name(value, hidden) if model else Path(value).name


def _public_predictions(predictions: Path, with_transcripts: bool, keep_names: bool) -> Path | bytes:
    if with_transcripts and keep_names:
        return predictions
    rows = read_predictions(predictions)
    if not with_transcripts:
        rows = [{name: value for name, value in row.items() if name != "asr"} for row in rows]
    return json_lines_text(rows if keep_names else without_names_in_predictions(rows)).encode()


def _json(content: object) -> bytes:
    return json_text(content).encode()
