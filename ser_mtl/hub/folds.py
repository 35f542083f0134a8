"""Publish five folds: a repository for each, and one with a card that covers all."""

import statistics
from pathlib import Path

from huggingface_hub import HfApi, ModelCard

from ser_mtl.corpora.dealing import FOLDS
from ser_mtl.errors import UserError
from ser_mtl.evaluation.results import percent, shared_speakers_note, transcription_note
from ser_mtl.hub.beside import means
from ser_mtl.hub.card import CITATION, CODE, LIMITS, ORACLE_WARNING, PAPER, metadata
from ser_mtl.hub.card_metrics import markdown_table
from ser_mtl.hub.complete import read_complete, read_results, selection_of
from ser_mtl.hub.completion import AS_IT_IS, Completion, keep_edits, signed
from ser_mtl.hub.contents import public_results
from ser_mtl.hub.licence import corpus_name, licence
from ser_mtl.hub.links import repository_link
from ser_mtl.hub.names import NOTE
from ser_mtl.hub.options import PRIVATE, Options
from ser_mtl.hub.push import hidden_models, make_repository, push
from ser_mtl.hub.record import Published
from ser_mtl.metrics import METRICS, Metric
from ser_mtl.safe_text import markdown
from ser_mtl.tasks import TASKS


def runs_of_folds(folder: Path) -> dict[int, Path]:
    """The runs `fold1` to `fold5` of a folder, by fold.

    Raises:
        UserError: a run is missing or incomplete, is of another fold than its name says, or has other settings.
    """
    runs = {fold: folder / f"fold{fold}" for fold in FOLDS}
    kinds = set()
    for fold, run in runs.items():
        results = read_complete(run)
        if results["fold"] != fold:
            raise UserError(f"{run}: holds fold {results['fold']}")
        kinds.add((results["stage"], results["corpus"], results["trainable"], results["selection"], *results["tasks"]))
    if len(kinds) > 1:
        raise UserError(f"{folder}: its folds are runs of different kinds; one card cannot describe them all")
    return runs


def publish_overview(
    runs: dict[int, Path],
    published: dict[int, Published],
    repo_id: str,
    options: Options = PRIVATE,
    token: str | None = None,
) -> Published:
    """Publish the card that covers all folds.

    Args:
        runs: folders of the folds.
        published: the repository of each fold.
        repo_id: the repository of the card.
        options: what is published, and to whom.
        token: the Hub token; by default, the one of the login.
    """
    api = HfApi(token=token)
    completion, hashing = options.completion, options.hashing
    repo_id = make_repository(api, repo_id, options.public)
    hidden = hidden_models(api, runs.values(), repo_id, options)
    results = {fold: public_results(read_results(run), None, not hashing, hidden) for fold, run in runs.items()}
    card = overview_card(results, {fold: where.repo_id for fold, where in published.items()}, repo_id, completion)
    files: dict[str, Path | bytes] = {"README.md": signed(card, completion).encode()}
    return push(api, keep_edits(api, repo_id, files, completion, options.overwrite_card), repo_id, options.public)


_DISJOINT = "No speaker of a fold's test utterances is in its training."


def overview_card(
    results: dict[int, dict], repositories: dict[int, str], repo_id: str, completion: Completion = AS_IT_IS
) -> str:
    """A card for all folds: a link to each, its metrics, their mean and spread.

    Args:
        results: the content of each fold's `results.json`.
        repositories: the Hub id of each fold.
        repo_id: the Hub id of the card.
        completion: the user's additions.
    """
    first = next(iter(results.values()))
    note = _transcription_note(results)
    sections = [
        f"# Speech emotion recognition, stage {markdown(first['stage'])}, {len(results)} folds of {corpus_name(first)}",
        "A model for each fold, trained on the others, after "
        f"{PAPER}, with {CODE}. This repository holds only the card; each model's own card says how to load it.",
        completion.text or None,
        _which_to_take(repositories),
        ORACLE_WARNING if first["selection"] == "oracle" else None,
        f"## Metrics\n\nOn the test utterances of each fold, in percent.\n\n{_folds_table(results, repositories)}\n\n"
        f"The mean over the folds ± the standard deviation between them, by style:\n\n{_styles_table(results)}\n\n"
        f"- Checkpoint of each fold: {selection_of(first)}.\n"
        f"- {shared_speakers_note(first) or _DISJOINT}\n"
        "- One seed per fold: the deviation is between test speakers, not between repetitions."
        + "".join(f"\n- {line}" for line in (note, NOTE if first.get("hashed_names") else None) if line),
        LIMITS,
        licence(first, completion),
        CITATION,
    ]
    mean = {"all": means([fold["test"]["all"] for fold in results.values()])}
    # Each fold has its own stage 1; all share the encoder.
    shared = {name: value for name, value in first.items() if name != "stage1"} | {"test": mean}
    data = metadata(shared, repo_id, f"mean over {len(results)} folds", completion)
    body = "\n\n".join(section for section in sections if section)
    return str(ModelCard(f"---\n{data.to_yaml()}\n---\n\n{body}\n"))


def _which_to_take(repositories: dict[int, str]) -> str:
    fold, repository = next(iter(repositories.items()))
    return f"""\
## Which to take

- For new recordings: any; take {repository_link(repository)} (fold {fold}). A fold with a higher score has easier test
  speakers, which does not make it a better model.
- For recordings of this corpus: the model of the fold that the speaker is in the test of. The others have heard them.
- To compare with another method: all {len(repositories)}, each on its own test speakers, and the mean."""


def _folds_table(results: dict[int, dict], repositories: dict[int, str]) -> str:
    columns = _columns(results)
    rows = []
    for fold, fold_results in results.items():
        scores = fold_results["test"]["all"]
        link = repository_link(repositories[fold])
        speakers = ", ".join(fold_results.get("held_out_speakers", []))
        values = [percent(scores, metric) for metric in columns]
        rows.append([str(fold), link, speakers, str(scores["n"]), *values])
    return markdown_table(["fold", "model", "test speakers", "utterances", *(metric.title for metric in columns)], rows)


def _styles_table(results: dict[int, dict]) -> str:
    columns = _columns(results)
    styles = [style for style in results[1]["test"] if all(style in fold["test"] for fold in results.values())]
    rows = [[style, *(_mean_and_spread(results, style, metric) for metric in columns)] for style in styles]
    return markdown_table(["utterances", *(metric.title for metric in columns)], rows)


def _mean_and_spread(results: dict[int, dict], style: str, metric: Metric) -> str:
    groups = [fold["test"][style].get(metric.group, {}) for fold in results.values()]
    if any(metric.key not in scores for scores in groups):
        return "-"
    values = [100 * scores[metric.key] for scores in groups]
    return f"{statistics.mean(values):.1f} ± {statistics.stdev(values):.1f}"


def _columns(results: dict[int, dict]) -> list[Metric]:
    """The metrics in the summary that every fold has; without word error rates if the models cannot transcribe."""
    folds = [fold["test"]["all"] for fold in results.values()]
    transcribes = _transcription_note(results) is None
    return [
        metric
        for metric in METRICS
        if metric.in_summary
        and metric.group in TASKS
        and all(metric.key in scores.get(metric.group, {}) for scores in folds)
        and (transcribes or metric.key != "wer")
    ]


def _transcription_note(results: dict[int, dict]) -> str | None:
    return transcription_note({"test": {fold: fold_results["test"]["all"] for fold, fold_results in results.items()}})
