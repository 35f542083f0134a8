"""What an earlier model was trained on: none of it may be in the development or the test set."""

from pathlib import Path
from typing import Any, NotRequired

from datasets import DatasetDict
from transformers.utils import cached_file
from typing_extensions import TypedDict

from ser_mtl.corpora.folds import Split
from ser_mtl.corpora.loading import name_in_results
from ser_mtl.errors import UserError, notice
from ser_mtl.files import read_json
from ser_mtl.hub.card import hub_id
from ser_mtl.hub.names import hashed
from ser_mtl.training.method import Earlier

_HELD_OUT = {
    "test": ("test set", ("train", "dev"), "use the {kind} of the same fold"),
    "dev": ("development set", ("train",), "use {a_kind} with the same --dev, or --dev none with --selection last"),
}
"""Parts of a run: name, the parts of an earlier one that must not hold any of its utterances, and what to do."""


def check_never_heard(earlier: Earlier, parts: DatasetDict, audio: dict[str, str] | None = None) -> None:
    """Check that an earlier model was not trained on what a run is tested on, or chooses its epoch and temperature on.

    The earlier model must hold out the same fold, and the same development set. Utterances are known by their names or,
    if `audio` is given, by their samples, whatever their names. A model without `args.json` and `split.json` cannot be
    checked and passes, with a notice.

    Args:
        earlier: the model, and the flag that names it.
        parts: the split corpus of the run.
        audio: the digest of each utterance's samples.

    Raises:
        UserError: names an utterance that the earlier model was trained on.
    """
    flag, model = earlier
    heard = utterances_heard(model, by_audio=audio is not None)
    if heard is None:
        if audio is None:  # else it has been said
            notice(
                f"{flag} {model}: cannot be checked for training on the test or development set, since it has no "
                "args.json or no split.json"
            )
        return
    words = {"kind": "stage 1", "a_kind": "a stage 1"} if flag == "--stage1" else {"kind": "model", "a_kind": "one"}
    for part, (name, before, remedy) in _HELD_OUT.items():
        known = set().union(*(heard[one] for one in before))
        utterances = parts[part].select_columns(["id", "corpus", "path"]) if part in parts else []
        both = [
            row["id"]
            for row in utterances
            if known & (utterance_keys(row) if audio is None else {audio.get(row["id"], "silence")})
        ]
        if both:
            raise UserError(
                f"{flag} {model}: was trained on {len(both)} utterances of the {name}, such as {min(both)}; "
                f"{remedy.format(**words)}"
            )


class _Corpus(TypedDict):
    corpus: str
    data_dir: list[str] | None


class _Record(TypedDict):
    corpus: _Corpus
    method: NotRequired[dict[str, Any]]


_OLDEST = 8
"""Models, one trained on from the other, that are looked at."""


def utterances_heard(model: str, by_audio: bool) -> dict[str, set[str]] | None:
    """What a model was trained ("train") and chosen on ("dev"), and the models that it was trained on from.

    Keys as of `utterance_keys`, or digests of samples. None if the model does not come with a whole record of it; of
    those before it, none is expected: most are stock encoders.
    """
    heard: dict[str, set[str]] | None = None
    for _ in range(_OLDEST):
        files = [_file_of(model, name, must_be=heard is None) for name in ("args.json", "split.json")]
        if None in files:
            break
        record, split = read_json(files[0], _Record), read_json(files[1], Split)
        if "train" not in split:
            break
        own = _utterances_of(record["corpus"], split, by_audio)
        heard = {part: names | (heard or own)[part] for part, names in own.items()}
        method = record.get("method", {})
        model = str(method.get("stage1") or method.get("encoder") or "")
        if not (Path(model).is_dir() or hub_id(model)):
            break
    return heard


def _file_of(model: str, name: str, must_be: bool) -> str | None:
    """A file of a model, if it has it. That an earlier model cannot be reached is no error."""
    try:
        return cached_file(model, name, _raise_exceptions_for_missing_entries=False)
    except OSError:
        if must_be:
            raise
        return None


def _utterances_of(corpus: _Corpus, record: dict, by_audio: bool) -> dict[str, set[str]]:
    ids = {part: record[part]["ids"] if part in record else [] for part in ("train", "dev")}
    if by_audio:
        return {part: set(record.get(part, {}).get("audio", [])) for part in ids}  # version 0.1 did not write them
    folders = [Path(folder) for folder in corpus["data_dir"] or []]
    if len(folders) > 1:
        return {part: set(names) for part, names in ids.items()}
    name = name_in_results(corpus["corpus"])
    prefixes = {folders[0].name, folders[0].resolve().name} if folders and name == "folder" else {name}
    return {part: {f"{prefix}/{name}" for prefix in prefixes for name in names} for part, names in ids.items()}


def utterance_keys(row: dict) -> set[str]:
    """The id of an utterance with the name of its corpus in front, as joined folders have it already.

    A folder that is a link goes by the name of the link as well, and every id by its hash: a public repository has
    hashes in the place of ids.
    """
    corpus, name, path = row["corpus"], row["id"], row["path"]
    folder = Path(path.removesuffix(name)).name if path.endswith(name) else corpus
    if name.startswith(f"{corpus}/"):
        return {name, hashed(name)}
    return {f"{prefix}/{known}" for prefix in (corpus, folder) for known in (name, hashed(name))}
