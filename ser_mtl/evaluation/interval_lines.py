"""The intervals in results, as lines and rows for people."""

from ser_mtl.evaluation.results import percent, results_frame
from ser_mtl.metrics import METRICS


def intervals_of(results: dict) -> list[tuple[str, str]]:
    """Each metric of the table that has an interval: its title, and value and interval of all utterances as text."""
    intervals = results.get("intervals", {}).get("all", {})
    scores = results["test"].get("all")
    if not intervals or not scores:
        return []
    shown, found = results_frame(results).columns, []
    for metric in METRICS:
        ends = intervals.get(metric.group, {}).get(metric.key)
        if ends and metric.title in shown:
            low, high = (percent({metric.group: {metric.key: end}}, metric) for end in ends)
            found.append((metric.title, f"{percent(scores, metric)} ({low} to {high})"))
    return found


def over_whom(results: dict) -> str:
    """A line on the method of the intervals."""
    if results.get("speakers"):
        return f"95 % intervals over speakers, {results['speakers']} in all (jackknife, Student's t)"
    return "95 % intervals over utterances, since the speakers are unknown: too narrow"


def interval_lines(results: dict) -> str:
    """The intervals of all utterances as plain text, one metric per line; empty without any."""
    lines = [f"{title:18} {shown}" for title, shown in intervals_of(results)]
    return "\n".join([over_whom(results), *lines]) if lines else ""
