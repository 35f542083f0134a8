"""Leaks between train, dev and test: shared speakers and dialogs are errors, near-duplicate transcripts are counted."""

from itertools import combinations

import numpy as np
from datasets import Dataset, DatasetDict

from ser_mtl.corpora.names import same_person
from ser_mtl.corpora.near_duplicates import has_near_duplicate
from ser_mtl.corpora.utterances import is_official, normalise_text
from ser_mtl.errors import UserError, notice
from ser_mtl.safe_text import printable

FEWEST_WORDS = 5
"""Shorter transcripts are not compared: everybody says "yes" and "I don't know"."""


def check_no_leak(splits: DatasetDict) -> None:
    """Check that no test speaker is in train or dev, and that no dialog is in two splits.

    A speaker may be in both train and dev. Utterances without a speaker or a dialog cannot be checked.

    Raises:
        UserError: names the speaker or dialog and the two splits.
    """
    for column in ("speaker", "dialog"):
        values = {
            name: {same_person(value) for value in set(rows[column][:]) - {None}} for name, rows in splits.items()
        }
        for first, second in combinations(splits, 2):
            shared = values[first] & values[second]
            if shared and (column == "dialog" or "test" in (first, second)):
                example = min(value for value in splits[first][column][:] if value and same_person(value) in shared)
                different = " (people of the same name in joined folders: --distinct_speakers)"
                raise UserError(
                    f"{column} {example!r} is in both {first} and {second} ({len(shared)} shared in all): "
                    f"put all utterances of a {column} into one fold (column 'fold')"
                    f"{different if column == 'speaker' else ''}"
                )


def audio_digests(decoded: Dataset) -> dict[str, str]:
    """The digest of each utterance's samples, by id. Digital silence is left out: equal clips of it prove nothing."""
    columns = decoded.select_columns(["id", "digest", "peak"])[:]
    utterances = zip(columns["id"], columns["digest"], columns["peak"], strict=True)
    return {name: digest for name, digest, peak in utterances if peak}


def check_no_shared_audio(splits: DatasetDict, decoded: Dataset) -> None:
    """Check that no recording is in two splits under two names. Digital silence is not compared.

    An official split is taken as it is: there, a notice says so.

    Args:
        splits: the split corpus.
        decoded: its utterances with `digest` and `peak`, see `ser_mtl.corpora.audio.with_samples`.

    Raises:
        UserError: names two utterances with the same samples, and their splits.
    """
    digests = audio_digests(decoded)
    utterances = {
        name: {digests[key]: key for key in sorted(rows["id"][:], reverse=True) if key in digests}
        for name, rows in splits.items()
    }
    for first, second in combinations(splits, 2):
        if shared := sorted(utterances[first][digest] for digest in utterances[first].keys() & utterances[second]):
            other = utterances[second][digests[shared[0]]]
            found = (
                f"{shared[0]} in {first} and {other} in {second} are the same recording ({len(shared)} shared in all)"
            )
            if not is_official(splits[first]):
                raise UserError(f"{found}: remove one of each, or put both into one fold and dialog")
            notice(f"official split: {found}")


def find_leaks(splits: DatasetDict) -> dict:
    """Count the test transcripts that train has a near-duplicate of, and the test utterances that cannot be checked.

    In an official split, test speakers may be in train; if there are any, they are counted too.

    Returns:
        `{"test_without_speaker": count, "test_speakers_in_train": {"speakers": count, "utterances": count},
        "near_duplicates": {"all": {"n", "share"}, <style>: ...}}`: n is the number of
        test transcripts with at least `FEWEST_WORDS` words, share the fraction with a near-duplicate in train. Groups
        without such transcripts are left out.
    """
    test, train = splits["test"], splits["train"]
    transcripts = _words(test)
    compared = [row for row, words in enumerate(transcripts) if len(words) >= FEWEST_WORDS]
    duplicates = has_near_duplicate([transcripts[row] for row in compared], _words(train))
    style_of = test["style"][:]
    styles = np.array([style_of[row] or "" for row in compared])
    groups = {"all": duplicates} | {style: duplicates[styles == style] for style in sorted(set(styles.tolist()) - {""})}
    return {
        "test_without_speaker": sum(speaker is None for speaker in test["speaker"][:]),
        **_shared_speakers(test, train),
        "near_duplicates": {
            name: {"n": len(group), "share": round(float(group.mean()), 4)}
            for name, group in groups.items()
            if len(group)
        },
    }


def leaks_line(leaks: dict) -> str:
    """The result of `find_leaks` in one line for people."""
    shares = [
        f"{printable(name)} {100 * group['share']:.1f} % of {group['n']}"
        for name, group in leaks["near_duplicates"].items()
    ]
    duplicates = ", ".join(shares) or "none compared"
    return f"Leaks: {speakers_line(leaks)}; test transcripts with a near-duplicate in train: {duplicates}"


def speakers_line(leaks: dict) -> str:
    """The speakers that test and train share, for people."""
    shared, unknown = leaks.get("test_speakers_in_train", {}), leaks["test_without_speaker"]
    found = []
    if shared.get("speakers"):
        found.append(f"{shared['utterances']} test utterances are by {shared['speakers']} speakers of train")
    if unknown:
        found.append(f"{unknown} test utterances without a speaker, not checked")
    return ", ".join(found) or "no shared speaker"


def _shared_speakers(test: Dataset, train: Dataset) -> dict[str, dict[str, int]]:
    known = {same_person(speaker) for speaker in train["speaker"][:] if speaker}
    shared = [key for speaker in test["speaker"][:] if speaker and (key := same_person(speaker)) in known]
    counts = {"speakers": len(set(shared)), "utterances": len(shared)}
    return {"test_speakers_in_train": counts} if shared else {}


def _words(rows: Dataset) -> list[list[str]]:
    """The words of every transcript; an empty list if there is none."""
    return [normalise_text(text or "").split() for text in rows["text"][:]]
