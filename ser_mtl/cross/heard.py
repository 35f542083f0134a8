"""What a model was trained or chosen on, itself or as one of the models that it started from."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from datasets import Dataset
from transformers.utils import cached_file

from ser_mtl.corpora.loading import name_in_results
from ser_mtl.corpora.names import same_person
from ser_mtl.corpora.split_record import Split
from ser_mtl.errors import UserError
from ser_mtl.files import read_json
from ser_mtl.hub.names import hashed
from ser_mtl.model.base import base_of
from ser_mtl.training.heard import utterance_keys, utterances_heard
from ser_mtl.training.run_folder import Record


@dataclass
class Heard:
    """The utterances of the training and development sets.

    Attributes:
        names: as `utterance_keys` gives them.
        audio: digests of samples.
        speakers: each after the name of its corpus, or the path of its folder.
        unknown: models that come without a record of theirs.
    """

    names: set[str] = field(default_factory=set)
    audio: set[str] = field(default_factory=set)
    speakers: set[str] = field(default_factory=set)
    unknown: list[str] = field(default_factory=list)

    def by_name(self, corpus: Dataset) -> set[str]:
        """The ids of the utterances of a corpus that are among them by their names."""
        rows = corpus.select_columns(["id", "corpus", "path"])
        return {row["id"] for row in rows if self.names & utterance_keys(row)}

    def speakers_in(self, corpus: Dataset) -> set[str]:
        """The speakers of a corpus that are among theirs, if it is the same corpus."""
        rows = corpus.select_columns(["id", "corpus", "path", "speaker"])
        known = {row["speaker"]: row for row in rows if row["speaker"] is not None}
        return {name for name, row in known.items() if self.speakers & _speaker_keys(row)}

    def by_audio(self, digests: dict[str, str]) -> set[str]:
        """The ids of the utterances that are among them by their samples, from the digest of each."""
        return {name for name, digest in digests.items() if digest in self.audio}


def heard_by(model: str, base: str | None = None) -> Heard:
    """What a model, its stage 1 and, if its encoder is a model of this project, that one were trained or chosen on.

    Args:
        model: a run folder or Hub id.
        base: of its adapters, if it is elsewhere than they say.
    """
    heard = Heard()
    for name in _models_below(model, base, heard.unknown):
        known, audio = (utterances_heard(name, by_audio) for by_audio in (False, True))
        if known is None or audio is None:
            heard.unknown.append(name)
        else:
            heard.names |= set().union(*known.values())
            heard.audio |= set().union(*audio.values()) - {None}
            heard.speakers |= _speakers_of(name)
    return heard


def _speakers_of(model: str) -> set[str]:
    """The speakers of the training and development sets of a model that has `args.json` and `split.json`."""
    args, split = (file_of(model, name) for name in ("args.json", "split.json"))
    assert args and split
    corpus, record = read_json(args, Record)["corpus"], read_json(split, Split)
    names = {name for part in ("train", "dev") for name in record.get(part, {}).get("speakers", [])}
    name = corpus.get("corpus") or "folder"
    places = [str(Path(folder).resolve()) for folder in corpus.get("data_dir") or []] if name == "folder" else [name]
    return {f"{name_in_results(place)}/{same_person(name)}" for place in places for name in names}


def _speaker_keys(row: dict) -> set[str]:
    """The speaker of an utterance, and its hash as in a public repository, after the corpus or folder."""
    places = (row["corpus"], str(Path(row["path"].removesuffix(row["id"])).resolve()))
    return {f"{place}/{same_person(name)}" for place in places for name in (row["speaker"], hashed(row["speaker"]))}


def _models_below(model: str, base: str | None, unknown: list[str]) -> Iterator[str]:
    """The model and those that it started from; what is not there goes to `unknown`."""
    seen: list[str] = []
    following: str | None = model
    while following and following not in seen:
        seen.append(following)
        yield following
        args = file_of(following, "args.json")
        method = read_json(args, Record).get("method", {}) if args else {}
        named = method.get("stage1") or method.get("encoder")
        places = [base, named, _base_of(following)]
        below = next((place for place in places if place and file_of(place, "split.json")), None)
        if below is None and method.get("stage1"):
            unknown.append(named)
        following, base = below, None


def _base_of(model: str) -> str | None:
    try:
        return base_of(model)
    except UserError:
        return None


def file_of(model: str, name: str) -> Path | None:
    """A file of a model, from its folder or the Hub; None if there is none."""
    try:
        found = cached_file(
            model, name, _raise_exceptions_for_missing_entries=False, _raise_exceptions_for_connection_errors=False
        )
    except (OSError, ValueError):  # neither a folder nor a Hub id
        return None
    return Path(found) if found else None
