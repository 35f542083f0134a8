"""The development set: whole dialogs or speakers, drawn from the utterances for training.

The draw depends on the corpus and the fold alone, not on the machine or on the seed of a run.
"""

import random
import re
from collections import defaultdict
from collections.abc import Sequence

from datasets import Dataset

from ser_mtl.corpora.dealing import ALL, Fold, most_frequent_values
from ser_mtl.corpora.utterances import chosen, is_official
from ser_mtl.errors import UserError

_DRAWS = 20  # dev is drawn this often; the draw with the most emotions wins


def choose_dev(train: Dataset, fold: Fold) -> list[int]:
    """The rows of `train` that become dev. Each joined corpus gives its own share, of scenarios or of speakers.

    A speaker drawn from one corpus is in dev with all corpora that speakers are drawn from.
    """
    rows_by_corpus = defaultdict(list)
    for row, name in enumerate(train["corpus"][:]):
        rows_by_corpus[name].append(row)
    unit_of: dict[int, tuple[str, str | None]] = {}
    dev_units: set[tuple[str, str | None]] = set()
    for name in sorted(rows_by_corpus, key=str):
        rows = chosen(train, rows_by_corpus[name])
        columns = rows.select_columns(["dialog", "speaker", "style", "gender", "emotion"])[:]
        if any(columns["dialog"]):
            kind, groups = "scenario", columns["style"]
            units = [dialog and scenario_of(dialog) for dialog in columns["dialog"]]
        elif any(columns["speaker"]):
            kind, units, groups = "speaker", columns["speaker"], columns["gender"]
        else:
            other = "none with --selection last" if fold == ALL or is_official(train) else "session or none"
            raise UserError(f"--dev dialog: corpus {name!r} has no dialogs and no speakers; use --dev {other}")
        dev_units |= {(kind, unit) for unit in _draw_with_most_emotions(units, groups, columns["emotion"], fold)}
        unit_of |= {row: (kind, unit) for row, unit in zip(rows_by_corpus[name], units, strict=True)}
    return sorted(row for row, unit in unit_of.items() if unit in dev_units)


_IEMOCAP_DIALOG = re.compile(r"((?:.*/)?Ses\d\d)[FM](_(?:impro|script)\d+(?:_\d+)?)[a-z]?")


def scenario_of(dialog: str) -> str:
    """The scenario of a dialog of IEMOCAP within its session; any other dialog is its own.

    Two actors played each scenario twice, with the motion-capture markers on her (Ses01F_impro05) and on him
    (Ses01M_impro05), and a few once more (Ses01F_impro05b): the same lines, or the same story, by the same voices.
    """
    match = _IEMOCAP_DIALOG.fullmatch(dialog)
    return "".join(match.groups()) if match else dialog


def _draw_with_most_emotions(
    units: Sequence[str | None], groups: Sequence[str | None], emotions: Sequence[str | None], fold: Fold
) -> set[str]:
    """Draw dialogs or speakers for dev, with as many emotions as possible; only labelled ones if there are any."""
    emotions_by_unit = defaultdict(set)
    for unit, emotion in zip(units, emotions, strict=True):
        if unit and emotion:
            emotions_by_unit[unit].add(emotion)
    unit_groups = most_frequent_values(units, groups)
    labelled = {unit: group for unit, group in unit_groups.items() if unit in emotions_by_unit}
    draws = [
        _draw(labelled or unit_groups, random.Random(f"dev of fold {fold}, draw {number}")) for number in range(_DRAWS)
    ]
    return max(draws, key=lambda draw: len(set().union(*(emotions_by_unit[unit] for unit in draw))))


def _draw(unit_groups: dict[str, str | None], generator: random.Random) -> set[str]:
    """Draw a tenth of the units, in proportion to their groups; at least one, and one of each group of two or more."""
    members = defaultdict(list)
    for unit in sorted(unit_groups):
        members[unit_groups[unit] or ""].append(unit)
    ranked = []
    for group in sorted(members):
        size = len(members[group])
        generator.shuffle(members[group])
        for rank, unit in enumerate(members[group]):
            required = rank == 0 and size > 1
            ranked.append((not required, (rank + 0.5) / size, unit))
    number = max(1, round(len(ranked) / 10), sum(len(units) > 1 for units in members.values()))
    return {unit for _, _, unit in sorted(ranked)[:number]}
