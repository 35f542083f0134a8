"""The figures of results.json as a table, for the terminal and the model card."""

import pandas as pd

_COLUMNS = {
    "emotion UA": ("emotion", "ua"),
    "emotion WA": ("emotion", "wa"),
    "emotion F1": ("emotion", "macro_f1"),
    "gender UA": ("gender", "ua"),
    "style UA": ("style", "ua"),
    "WER": ("asr", "wer"),
    "WER, adapters off": ("asr_adapters_off", "wer"),
}


def results_frame(results: dict) -> pd.DataFrame:
    """Lay out `results["test"]` with one row a group and one column a figure, all as text.

    Figures are percent with one decimal, "-" where a group has none. The column of WER with the adapters off is
    there only where a group has it.
    """
    groups = results["test"]
    rows = {
        group: {"n": str(figures["n"])} | {name: _percent(figures, *key) for name, key in _COLUMNS.items()}
        for group, figures in groups.items()
    }
    frame = pd.DataFrame.from_dict(rows, orient="index")
    if not any("asr_adapters_off" in figures for figures in groups.values()):
        frame = frame.drop(columns="WER, adapters off")
    return frame


def results_table(results: dict) -> str:
    """Render the test figures of `results` as a plain-text table, in percent."""
    return results_frame(results).to_string()


def _percent(figures: dict, task: str, figure: str) -> str:
    return f"{100 * figures[task][figure]:.1f}" if task in figures else "-"
