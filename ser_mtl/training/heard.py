"""The utterances that an earlier model was trained on: none may be in the development or test set."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from datasets import DatasetDict
from transformers.utils import cached_file
from typing_extensions import TypedDict

from ser_mtl.corpora.loading import name_in_results
from ser_mtl.corpora.split_record import Split
from ser_mtl.errors import UserError, notice
from ser_mtl.files import read_json
from ser_mtl.hub.names import hashed
from ser_mtl.model.base import base_of
from ser_mtl.training.method import Earlier
from ser_mtl.training.run_folder import Record

_HELD_OUT = {
    "test": ("test set", ("train", "dev"), "use the {kind} of the same fold"),
    "dev": ("development set", ("train",), "use {a_kind} with the same --dev, or --dev none with --selection last"),
}
"""By part of a run: its name, the parts of the earlier run that must not share an utterance with it, and the remedy."""


def check_never_heard(earlier: Earlier, parts: DatasetDict, audio: dict[str, str] | None = None) -> None:
    """Check that an earlier model was not trained on the test set of a run, or on its development set.

    The earlier model must hold out the same fold, and the same development set. Utterances are recognised by their
    names or, if `audio` is given, by their samples. A model without `args.json` and `split.json` cannot be checked and
    passes, with a notice.

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
        if audio is None:  # else the user has been told
            notice(
                f"{flag} {model}: cannot be checked for training on the test or development set, since it has no "
                "args.json or no split.json"
            )
        return
    words = {"kind": "stage 1", "a_kind": "a stage 1"} if flag == "--stage1" else {"kind": "model", "a_kind": "one"}
    for part, (name, before, remedy) in _HELD_OUT.items():
        known = set().union(*(heard[part_before] for part_before in before))
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


class Known(NamedTuple):
    """The corpus and the utterances of a model's training, from its `args.json` and `split.json`."""

    corpus: _Corpus
    split: dict  # a `Split`, whose parts are named by variables here

    def utterances(self, by_audio: bool) -> dict[str, set[str]]:
        """The utterances of "train" and "dev": keys as of `utterance_keys`, or digests of samples."""
        return _utterances_of(self.corpus, self.split, by_audio)


_OLDEST = 8
"""The most models of a lineage that are looked at."""


def lineage(model: str, base: str | None = None, reachable: bool = False) -> Iterator[tuple[str, Known | None]]:
    """A model and its ancestors, the youngest first: its stage 1, and encoders of this project.

    Args:
        model: a run folder or Hub id.
        base: of its adapters, if it has moved.
        reachable: whether to raise OSError if the model itself cannot be reached.

    Yields:
        The name of each, and what it was trained on; None if it has no record of that. Stock encoders are left out; a
        stage 1 that is missing is not.
    """
    seen: list[str] = []
    following: str | None = model
    while following and following not in seen and len(seen) < _OLDEST:
        must_be = reachable and not seen
        seen.append(following)
        args, split = (file_of(following, name, must_be) for name in ("args.json", "split.json"))
        yield following, _known(args, split) if args and split else None
        method = read_json(args, Record).get("method", {}) if args else {}
        places = [base, method.get("stage1") or method.get("encoder"), _base_of(following)]
        following = next((place for place in places if place and file_of(place, "split.json")), None)
        if following is None and method.get("stage1"):
            yield method["stage1"], None
        base = None


def _known(args: Path, split: Path) -> Known | None:
    """The content of the two files; None if they do not hold the training set."""
    record, parts = read_json(args, _Record), read_json(split, Split)
    return Known(record["corpus"], parts) if "train" in parts else None


def _base_of(model: str) -> str | None:
    try:
        return base_of(model)
    except UserError:
        return None


def utterances_heard(model: str, by_audio: bool) -> dict[str, set[str]] | None:
    """The utterances that a model and its ancestors were trained ("train") and selected ("dev") on.

    In the form of `Known.utterances`. None if the model itself has no complete record; its ancestors need none.
    """
    heard: dict[str, set[str]] | None = None
    for _, known in lineage(model, reachable=True):
        if known is None:
            break
        own = known.utterances(by_audio)
        heard = {part: names | (heard or own)[part] for part, names in own.items()}
    return heard


def file_of(model: str, name: str, reachable: bool = False) -> Path | None:
    """A file of a model, from its folder or the Hub; None if there is none.

    Args:
        model: a folder or Hub id.
        name: of the file.
        reachable: whether to raise OSError if the model cannot be reached.
    """
    try:
        found = cached_file(
            model, name, _raise_exceptions_for_missing_entries=False, _raise_exceptions_for_connection_errors=reachable
        )
    except (OSError, ValueError):  # neither a folder nor a Hub id
        if reachable:
            raise
        return None
    return Path(found) if found else None


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
    """The names by which an utterance is recognised: `<corpus>/<id>`, which joined folders have as the id already.

    A linked folder also goes by the name of the link, and each id also by its hash, which public repositories have in
    its place.
    """
    corpus, name, path = row["corpus"], row["id"], row["path"]
    folder = Path(path.removesuffix(name)).name if path.endswith(name) else corpus
    if name.startswith(f"{corpus}/"):
        return {name, hashed(name)}
    return {f"{prefix}/{known}" for prefix in (corpus, folder) for known in (name, hashed(name))}
