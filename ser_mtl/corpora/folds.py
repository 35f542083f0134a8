"""Train, dev and test: one fold is the test set, and dev comes from the rest.

No choice here depends on the machine or on the seed of a run: runs are comparable only on the same utterances.
"""

from typing import get_args

from datasets import Dataset, DatasetDict

from ser_mtl.corpora.dealing import ALL, FOLDS, PARTS, DevChoice, Fold
from ser_mtl.corpora.dev_set import choose_dev
from ser_mtl.corpora.leaks import check_no_leak
from ser_mtl.corpora.utterances import check_utterances, chosen, is_official
from ser_mtl.errors import UserError


def split(corpus: Dataset, fold: Fold | None = None, dev: DevChoice = "dialog") -> DatasetDict:
    """Split a corpus into `train`, `test` and, unless `dev` is "none", `dev`.

    With `fold` "all" there is no `test`: all other utterances are for training.

    An official split is taken as it is: speakers may be on both sides, which `find_leaks` counts. Without a dev set of
    its own, dev is drawn from its training set.

    Args:
        corpus: with the columns of `ser_mtl.corpora.utterances.FEATURES`.
        fold: the test fold, 1..5; None or 1 for an official split; "all" holds nothing out.
        dev: "dialog": a tenth of the training dialogs, whole dialogs, from each joined corpus, and for IEMOCAP whole
            scenarios of a session; a tenth of the training speakers where a corpus has no dialogs. "session": the fold
            after the test fold; fold 1 follows fold 5.

    Raises:
        UserError: an unknown fold or dev, a fold without utterances, no utterance left for training, or a leak.
    """
    check_utterances("corpus", corpus)
    if dev not in get_args(DevChoice):
        raise UserError(f"--dev {dev!r}: must be one of {', '.join(get_args(DevChoice))}")
    if fold == ALL:
        return _whole(corpus, dev)
    if is_official(corpus):
        return _official(corpus, fold, dev)
    if fold is None:
        raise UserError("--fold: is required, 1 to 5: which fifth of the speakers is the test; no official split here")
    if fold not in FOLDS:
        raise UserError(f"--fold {fold!r}: must be one of 1 to 5, or all")
    folds, fold = list(corpus["fold"][:]), int(fold)
    test = rows_of_fold(folds, fold, f"--fold {fold}")
    train = sorted(set(range(len(folds))) - set(test))
    dev_rows = _dev_rows(corpus, train, fold, dev)
    train = sorted(set(train) - set(dev_rows))
    if not train:
        raise UserError(_nothing_to_train_on(corpus, fold, dev))
    rows = {"train": train, "dev": dev_rows, "test": test}
    splits = DatasetDict({name: chosen(corpus, rows[name]) for name in rows if (name, dev) != ("dev", "none")})
    check_no_leak(splits)
    return splits


def _dev_rows(corpus: Dataset, train: list[int], fold: int, dev: DevChoice) -> list[int]:
    if dev == "session":
        return rows_of_fold(list(corpus["fold"][:]), fold % len(FOLDS) + 1, "--dev session")
    return [train[row] for row in choose_dev(chosen(corpus, train), fold)] if dev == "dialog" else []


def _whole(corpus: Dataset, dev: DevChoice) -> DatasetDict:
    """All utterances for training, except dev: that of an official split, or else drawn."""
    if dev == "session":
        raise UserError(
            "--dev session: is the fold after the test one, and --fold all has none; use --dev dialog or none"
        )
    dev_rows: list[int] = []
    if dev == "dialog":
        dev_rows = [row for row, part in enumerate(corpus["split"][:]) if part == "dev"] if is_official(corpus) else []
        dev_rows = dev_rows or choose_dev(corpus, ALL)
    train = sorted(set(range(len(corpus))) - set(dev_rows))
    if not train:
        raise UserError(_nothing_to_train_on(corpus, ALL, dev))
    splits = DatasetDict({"train": chosen(corpus, train)})
    if dev != "none":
        splits["dev"] = chosen(corpus, dev_rows)
    if not is_official(corpus):
        check_no_leak(splits)
    return splits


def _official(corpus: Dataset, fold: Fold | None, dev: DevChoice) -> DatasetDict:
    """The parts of an official split."""
    if fold not in (None, 1):
        raise UserError(
            f"--fold {fold}: the corpus has an official split, one test set; leave --fold out (or train on everything: "
            "--fold all), or remove its column 'split' to deal its speakers into folds"
        )
    if dev == "session":
        raise UserError("--dev session: the corpus has an official split and no sessions; leave --dev out")
    parts = list(corpus["split"][:])
    rows = {part: [row for row, name in enumerate(parts) if name == part] for part in PARTS}
    if dev == "dialog" and not rows["dev"]:
        rows["dev"] = [rows["train"][row] for row in choose_dev(chosen(corpus, rows["train"]), 1)]
        rows["train"] = sorted(set(rows["train"]) - set(rows["dev"]))
        if not rows["train"]:
            raise UserError(_nothing_to_train_on(corpus, 1, dev))
    return DatasetDict({part: chosen(corpus, rows[part]) for part in PARTS if (part, dev) != ("dev", "none")})


def _nothing_to_train_on(corpus: Dataset, fold: Fold, dev: DevChoice) -> str:
    speakers = set(corpus["speaker"][:]) - {None}
    if len(speakers) == 1 and None not in set(corpus["speaker"][:]):
        more = "" if any(corpus["dialog"][:]) and fold != ALL else " --dev none --selection last"
        return f"the corpus has one speaker, so nobody is left to test on; to train on everything, --fold all{more}"
    if len(speakers) == 2 and dev == "dialog":
        return (
            "the corpus has two speakers: one is the test, one is left to train on and none for a development set; add "
            "--dev none --selection last"
        )
    return f"--fold {fold} with --dev {dev} leaves no utterance to train on; use another --fold or --dev"


def rows_of_fold(folds: list[int | None], fold: int, flag: str) -> list[int]:
    """The rows of a fold.

    Raises:
        UserError: there are none.
    """
    rows = [row for row, number in enumerate(folds) if number == fold]
    if not rows:
        present = ", ".join(map(str, sorted({number for number in folds if number is not None}))) or "none"
        raise UserError(f"{flag}: fold {fold} holds no utterance; folds with utterances: {present}")
    return rows
