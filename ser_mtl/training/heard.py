"""What an earlier model was trained on: none of it may be in the development or the test set."""

from pathlib import Path

from datasets import DatasetDict
from transformers.utils import cached_file
from typing_extensions import TypedDict

from ser_mtl.corpora.folds import Split
from ser_mtl.corpora.loading import name_in_results
from ser_mtl.errors import UserError, notice
from ser_mtl.files import read_json
from ser_mtl.hub.names import hashed

_HELD_OUT = {
    "test": ("test set", ("train", "dev"), "use the stage 1 of the same fold"),
    "dev": ("development set", ("train",), "use a stage 1 with the same --dev, or --dev none with --selection last"),
}
"""Parts of stage 2: name, the parts of stage 1 that must not hold any of its utterances, and what to do."""


def check_stage1_never_heard(stage1: str, parts: DatasetDict, audio: dict[str, str] | None = None) -> None:
    """Check that stage 1 was not trained on what stage 2 is tested on, or chooses its epoch and temperature on.

    Stage 1 must hold out the same fold, and the same development set. Utterances are known by their names or, if
    `audio` is given, by their samples, whatever their names. A stage 1 without `args.json` and `split.json` cannot be
    checked and passes, with a notice.

    Args:
        stage1: Hub id or folder.
        parts: the split corpus of stage 2.
        audio: the digest of each utterance's samples.

    Raises:
        UserError: names an utterance that stage 1 was trained on.
    """
    heard = utterances_of_stage1(stage1, by_audio=audio is not None)
    if heard is None:
        if audio is None:  # else it has been said
            notice(
                f"--stage1 {stage1}: cannot be checked for training on the test or development set, since it has no "
                "args.json or no split.json"
            )
        return
    for part, (name, earlier, remedy) in _HELD_OUT.items():
        known = set().union(*(heard[one] for one in earlier))
        utterances = parts[part].select_columns(["id", "corpus", "path"]) if part in parts else []
        both = [
            row["id"]
            for row in utterances
            if known & (utterance_keys(row) if audio is None else {audio.get(row["id"], "silence")})
        ]
        if both:
            raise UserError(
                f"--stage1 {stage1}: was trained on {len(both)} utterances of the {name}, such as {min(both)}; {remedy}"
            )


class _Stage1Corpus(TypedDict):
    corpus: str
    data_dir: list[str] | None


class _Stage1Record(TypedDict):
    corpus: _Stage1Corpus


def utterances_of_stage1(stage1: str, by_audio: bool) -> dict[str, set[str]] | None:
    """What stage 1 was trained ("train") and chosen on ("dev"): keys as of `utterance_keys`, or digests of samples.

    None if the model does not come with a record of it.
    """
    args, split = (
        cached_file(stage1, name, _raise_exceptions_for_missing_entries=False) for name in ("args.json", "split.json")
    )
    if not (args and split):
        return None
    corpus, record = read_json(args, _Stage1Record)["corpus"], read_json(split, Split)
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
