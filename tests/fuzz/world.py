"""What inputs are tried on: a corpus, an encoder, and finished runs of both stages, as small as they can be."""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from helpers.iemocap_tree import write_tree
from helpers.tiny import run_flags, run_script, write_corpus, write_encoder


@dataclass(frozen=True)
class World:
    """Folders that are made once and never changed."""

    corpus: Path
    encoder: Path
    stage1: Path
    stage2: Path
    iemocap: Path
    tables: Path


def make_tables(folder: Path) -> Path:
    """Finished runs of two rows and three folds, with all that a report reads."""
    from helpers.finished_runs import LABELS, write_runs

    from ser_mtl.files import write_json
    from ser_mtl.tables.plan import choose_rows, plan

    runs = plan(choose_rows([], ["t1-full-ser"], []), [1, 2], [0], folder)
    write_runs(runs, {}, oracle=True)
    rows = [json.loads(line) for line in (runs[0].folder / "predictions.jsonl").read_text().splitlines()]
    rated = {
        row["id"]: {"label": row["emotion"]["label"], "right": [LABELS["emotion"][:1]], "rater": 0.5} for row in rows
    }
    ceiling = {"ua": 0.6, "wa": 0.6, "raters": 3, "tied": 0.1, "wa_of_label": 0.7, "utterances": rated}
    write_json(folder / "baselines.json", {"text_only": rows, "ceiling": ceiling})
    cosines = {"update": 0, "epoch": 0.5, "cosines": {"emotion asr": [0.1, None], "emotion emotion": [0.4, 0.2]}}
    record = {"every_updates": 50, "seconds": 1.0, "training_seconds": 9.0, "groups": ["encoder", "layer 1"]}
    write_json(runs[0].folder / "gradient_cosines.json", record | {"measurements": [cosines]})
    return folder


def make_world(folder: Path) -> World:
    """Make everything; it takes half a minute."""
    corpus, encoder = write_corpus(folder / "corpus"), write_encoder(folder / "encoder")
    stage1, stage2 = folder / "stage1", folder / "stage2"
    for script, flags in (
        ("run_stage1", run_flags(corpus, stage1, encoder=encoder)),
        ("run_stage2", run_flags(corpus, stage2, stage1=stage1)),
    ):
        ended = run_script(script, flags)
        assert ended.code == 0, ended.stderr
    return completed(folder, corpus, encoder, stage1, stage2)


def completed(folder: Path, corpus: Path, encoder: Path, stage1: Path, stage2: Path) -> World:
    """A world around finished runs."""
    write_tree(folder / "iemocap")
    return World(corpus, encoder, stage1, stage2, folder / "iemocap", make_tables(folder / "tables"))


def linked(source: Path, target: Path) -> Path:
    """A copy of a folder whose files are hard links: to be replaced, not to be written into."""
    for path in source.rglob("*"):
        place = target / path.relative_to(source)
        if path.is_file():
            place.parent.mkdir(parents=True, exist_ok=True)
            os.link(path, place)
    return target


def places_in(content: Any, place: tuple = ()) -> Iterator[tuple]:
    """The places of a JSON value, as keys and indices from the top; of a list, its first two entries and its last."""
    yield place
    entries = list(
        content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    )
    chosen = entries if isinstance(content, dict) else [*entries[:2], *entries[2:][-1:]]
    for key, value in chosen[:40]:
        yield from places_in(value, (*place, key))
