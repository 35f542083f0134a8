"""The paper's claims, tested on these runs: a paired test of each, and a verdict in words."""

from typing import NamedTuple

from markupsafe import Markup

from ser_mtl.errors import UserError
from ser_mtl.evaluation.intervals import counts, ends, with_ends
from ser_mtl.tables.finished import FinishedRow
from ser_mtl.tables.rows import CLAIMS, Claim
from ser_mtl.tables.statistics import FEWEST_FOLDS, Comparison, compare, holm
from ser_mtl.tables.text import Table, p_value, percent

_SURE = 0.05


class CheckedClaim(NamedTuple):
    """A claim with its test; `p` is corrected for the number of tested claims."""

    claim: Claim
    comparison: Comparison
    p: float
    better: float
    worse: float


def check_claims(rows: list[FinishedRow]) -> list[CheckedClaim]:
    """Test every claim whose two rows have runs, on the folds that both have; with Holm-corrected p-values.

    A claim about the same runs as an earlier one is the same test, and is left out.
    """
    by_id = {row.id: row for row in rows}
    tests: list[tuple[Claim, Comparison, float, float]] = []
    compared_runs: set[tuple[str, str]] = set()
    for claim in CLAIMS:
        if claim.better in by_id and claim.worse in by_id:
            better, worse = by_id[claim.better], by_id[claim.worse]
            if (pair := (better.row.run, worse.row.run)) in compared_runs:
                continue
            compared_runs.add(pair)
            if folds := better.folds & worse.folds:
                first, second = (counts(row.predictions(folds)) for row in (better, worse))
                try:
                    compared = compare(first, second)
                except ValueError as error:
                    raise UserError(f"{better.id}, {worse.id}: {error}; report them apart, with --rows") from error
                tests.append((claim, compared, first.overall(), second.overall()))
    corrected = holm([comparison.p for _, comparison, _, _ in tests])
    return [
        CheckedClaim(claim, comparison, p, better_ua, worse_ua)
        for (claim, comparison, better_ua, worse_ua), p in zip(tests, corrected, strict=True)
    ]


def verdict(tested: CheckedClaim) -> str:
    """The verdict on a claim, in words."""
    difference = tested.comparison.difference
    p = p_value(tested.p)
    points = f"{100 * difference.value:+.1f} points of UA{ends(difference)}, p {p if p.startswith('<') else f'= {p}'}"
    if tested.p < _SURE:
        return f"**holds** ({points})" if difference.value > 0 else f"**the opposite holds** ({points})"
    folds = tested.comparison.folds
    if folds < FEWEST_FOLDS:
        return f"**cannot be decided** with {folds} {'fold' if folds == 1 else 'folds'} ({points})"
    shown = round(difference.value, 3)  # as in `points`
    if shown == 0:
        return f"**not shown**: there is no difference ({points})"
    sign = "agrees with the claim" if shown > 0 else "is against the claim"
    return f"**not shown**: the difference {sign}, but may be chance ({points})"


def tests_table(tested: list[CheckedClaim], rows: list[FinishedRow]) -> Table:
    """The paired tests as a table."""
    paper = {row.id: row.row.paper.ua for row in rows}

    def papers_difference(claim: Claim) -> str:
        better, worse = paper[claim.better], paper[claim.worse]
        return "-" if better is None or worse is None else f"{better - worse:+.2f}"

    lines = [
        [
            Markup(f"`{check.claim.better}` against `{check.claim.worse}`"),
            percent(check.better), percent(check.worse),
            with_ends(check.comparison.difference, "+.1f"), papers_difference(check.claim),
            p_value(check.comparison.p), p_value(check.p), str(check.comparison.folds),
        ]
        for check in tested
    ]  # fmt: skip
    header = [
        "rows",
        "UA, first row",
        "UA, second row",
        "difference (95 %)",
        "paper's difference",
        "p",
        "p, corrected",
        "folds",
    ]
    return Table(header, lines)
