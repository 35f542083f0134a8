"""Choosing the utterances that a model is tested on: a part of a corpus, and none that the model was trained on."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

from datasets import Dataset, DatasetDict

from ser_mtl.corpora.dealing import FOLDS, PARTS
from ser_mtl.corpora.folds import rows_of_fold
from ser_mtl.corpora.mapping import with_map
from ser_mtl.corpora.utterances import is_official, joined
from ser_mtl.cross.heard import Heard
from ser_mtl.errors import UserError

Part = Literal["all", "train", "dev", "test", "unseen"]


class Chosen(NamedTuple):
    """Utterances to test on.

    Attributes:
        corpus: the utterances.
        part: the name of this part of the corpus, for people.
        left_out: a line for each reason why others are left out.
        heard_speakers: training speakers who are also in an official test set.
    """

    corpus: Dataset
    part: str
    left_out: list[str]
    heard_speakers: frozenset[str] = frozenset()


def choose(
    corpus: Dataset, words: Sequence[str], fold: int | None, part: Part | None, heard: Heard, model: str
) -> Chosen:
    """The utterances of a fold or part, under the labels of `--map`.

    Without fold and part, it is the test set of an official split, else the whole corpus.

    Raises:
        UserError: there is no such fold or part, or the model knows utterances or speakers in it by their names.
    """
    names = heard.by_name(corpus)  # before the map, which may leave out the utterances that give speakers away
    speakers = _speakers(corpus, names) | heard.speakers_in(corpus)
    mapped, left_out = with_map(corpus, words) if words else (corpus, [])
    rows, title = _rows_of(mapped, fold, part)
    official = title in PARTS
    chosen = Chosen(
        joined(DatasetDict({title: mapped.select(rows)})),
        title,
        left_out,
        frozenset(speakers) if official else frozenset(),
    )
    return without_heard(chosen, names, speakers, part, model, mapped)


def without_heard(
    chosen: Chosen,
    names: set[str],
    speakers: set[str],
    part: Part | None,
    model: str,
    whole: Dataset | None = None,
) -> Chosen:
    """The utterances, if the model knows none of them; with `part` "unseen", those that it does not know.

    The model may know the speakers of an official test set, which is taken as it is.

    Args:
        chosen: utterances.
        names: ids of the utterances that the model was trained or selected on.
        speakers: their speakers.
        part: that was asked for.
        model: its name, for messages.
        whole: the whole corpus, if `names` and `speakers` cover all of it.

    Raises:
        UserError: says how many the model knows, and what to evaluate instead.
    """
    table = list(zip(*(chosen.corpus[column][:] for column in ("id", "speaker", "fold")), strict=True))
    by_name = [row for row, (name, _, _) in enumerate(table) if name in names]
    by_speaker = [row for row, (name, who, _) in enumerate(table) if who in speakers and name not in names]
    if part == "unseen":
        return _unseen(chosen, by_name, by_speaker, model)
    if by_name or (by_speaker and chosen.part not in PARTS):
        overlap = _overlap(table, by_name, by_speaker)
        remedy = _remedy(chosen.corpus if whole is None else whole, names, speakers)
        raise UserError(f"{model}: was trained on {overlap}; {remedy}")
    return chosen


def _unseen(chosen: Chosen, by_name: list[int], by_speaker: list[int], model: str) -> Chosen:
    """The utterances without these rows."""
    known = {*by_name, *by_speaker}
    rest = [row for row in range(len(chosen.corpus)) if row not in known]
    if not rest:
        raise UserError(f"--part unseen: {model} was trained on all of these utterances or their speakers")
    lines = [
        f"{len(rows)} utterances {why} (--part unseen)"
        for rows, why in ((by_name, "of the model's training"), (by_speaker, "by speakers of the model's training"))
        if rows
    ]
    title = "unseen" if chosen.part == "all" else chosen.part
    corpus = joined(DatasetDict({title: chosen.corpus.select(rest)}))
    return chosen._replace(corpus=corpus, part=title, left_out=chosen.left_out + lines)


def known_by_audio(chosen: Chosen, digests: dict[str, str], heard: Heard, part: Part | None, model: str) -> Chosen:
    """As `without_heard`, by the samples: `digests` holds the digest of each utterance's.

    Raises:
        UserError: the model was trained on recordings among them.
    """
    names = heard.by_audio(digests)
    speakers = _speakers(chosen.corpus, names)
    known = chosen.heard_speakers | speakers if chosen.part in PARTS else chosen.heard_speakers
    return without_heard(chosen._replace(heard_speakers=known), names, speakers, part, model)


def _speakers(corpus: Dataset, names: set[str]) -> set[str]:
    rows = zip(corpus["id"][:], corpus["speaker"][:], strict=True)
    return {speaker for name, speaker in rows if name in names and speaker is not None}


def _rows_of(corpus: Dataset, fold: int | None, part: Part | None) -> tuple[list[int], str]:
    official = is_official(corpus)
    if fold is not None:
        if official:
            raise UserError(f"--fold {fold}: the corpus has an official split; --part test is its test set")
        if part not in (None, "all", "unseen"):
            raise UserError(f"--part {part}: goes with an official split, not with --fold")
        if fold not in FOLDS:
            raise UserError(f"--fold {fold}: must be one of 1 to 5")
        return rows_of_fold(list(corpus["fold"]), fold, f"--fold {fold}"), f"fold {fold}"
    if part in PARTS or (part is None and official):
        if not official:
            raise UserError(f"--part {part}: the corpus has no official split; use --fold, or --part unseen")
        wanted = part or "test"
        rows = [row for row, name in enumerate(corpus["split"]) if name == wanted]
        if not rows:
            raise UserError(f"--part {wanted}: the official split has none")
        return rows, wanted
    return list(range(len(corpus))), "all"


def _overlap(table: list[tuple], by_name: list[int], by_speaker: list[int]) -> str:
    example = table[(by_name or by_speaker)[0]][0]
    if not by_name:
        return f"the speakers of {len(by_speaker)} of the {len(table)} utterances, such as {example}"
    more = f", and on the speakers of {len(by_speaker)} more" if by_speaker else ""
    return f"{len(by_name)} of the {len(table)} utterances (by name or recording, such as {example}){more}"


def _remedy(corpus: Dataset, names: set[str], speakers: set[str]) -> str:
    """What to evaluate instead."""
    rows = list(zip(*(corpus[column][:] for column in ("id", "speaker", "fold")), strict=True))
    known = {fold for name, speaker, fold in rows if name in names or speaker in speakers}
    new = sorted({fold for _, _, fold in rows} - known - {None})
    unseen = sum(name not in names and speaker not in speakers for name, speaker, _ in rows)
    if not unseen:
        return "nothing of it is new to the model: test on another corpus"
    folds = f"--fold {new[0]} is new to it, " if new and not is_official(corpus) else ""
    return f"{folds}--part unseen takes the {unseen} that it does not know"
