"""The utterances and speakers that a model was trained or selected on, or one of the models that it started from."""

from dataclasses import dataclass, field
from pathlib import Path

from datasets import Dataset

from ser_mtl.corpora.loading import name_in_results
from ser_mtl.corpora.names import same_person
from ser_mtl.hub.names import hashed
from ser_mtl.training.heard import Known, lineage, utterance_keys


@dataclass
class Heard:
    """The utterances of the training and development sets.

    Attributes:
        names: as `utterance_keys` gives them.
        audio: digests of samples.
        speakers: each as `<name of the corpus, or path of its folder>/<speaker>`.
        unknown: models without a record of their utterances.
    """

    names: set[str] = field(default_factory=set)
    audio: set[str] = field(default_factory=set)
    speakers: set[str] = field(default_factory=set)
    unknown: list[str] = field(default_factory=list)

    def by_name(self, corpus: Dataset) -> set[str]:
        """The ids of the utterances of a corpus that are in `names`."""
        rows = corpus.select_columns(["id", "corpus", "path"])
        return {row["id"] for row in rows if self.names & utterance_keys(row)}

    def speakers_in(self, corpus: Dataset) -> set[str]:
        """The speakers of a corpus that are in `speakers`, which needs the same corpus."""
        rows = corpus.select_columns(["id", "corpus", "path", "speaker"])
        known = {row["speaker"]: row for row in rows if row["speaker"] is not None}
        return {name for name, row in known.items() if self.speakers & _speaker_keys(row)}

    def by_audio(self, digests: dict[str, str]) -> set[str]:
        """The ids of the utterances whose samples are in `audio`, given the digest of each."""
        return {name for name, digest in digests.items() if digest in self.audio}


def heard_by(model: str, base: str | None = None) -> Heard:
    """The utterances that a model, its stage 1, and its encoder, if that is one of ours, were trained or selected on.

    Args:
        model: a run folder or Hub id.
        base: of its adapters, if it has moved.
    """
    heard = Heard()
    for name, known in lineage(model, base):
        if known is None:
            heard.unknown.append(name)
        else:
            heard.names |= set().union(*known.utterances(by_audio=False).values())
            heard.audio |= set().union(*known.utterances(by_audio=True).values()) - {None}
            heard.speakers |= _speakers_of(known)
    return heard


def _speakers_of(known: Known) -> set[str]:
    """The speakers of the training and development sets."""
    names = {name for part in ("train", "dev") for name in known.split.get(part, {}).get("speakers", [])}
    corpus = known.corpus["corpus"]
    places = [str(Path(folder).resolve()) for folder in known.corpus["data_dir"] or []]
    places = places if corpus == "folder" else [corpus]
    return {f"{name_in_results(place)}/{same_person(name)}" for place in places for name in names}


def _speaker_keys(row: dict) -> set[str]:
    """The keys in `Heard.speakers` of an utterance's speaker, also with the name hashed as in a public repository."""
    places = (row["corpus"], str(Path(row["path"].removesuffix(row["id"])).resolve()))
    return {f"{place}/{same_person(name)}" for place in places for name in (row["speaker"], hashed(row["speaker"]))}
