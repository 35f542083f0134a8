"""A described corpus from disk to utterances, by the rules of its description. No audio is decoded."""

import logging
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from datasets import Dataset

from ser_mtl.corpora.dealing import assign_folds
from ser_mtl.corpora.description import COLUMNS, LEAVES_OUT, REST, Description, Table
from ser_mtl.corpora.names import alike_people, clean, cleaned, one_name_each, spelling
from ser_mtl.corpora.patterns import compile_pattern, fill, parts_in
from ser_mtl.corpora.tables import rows_of
from ser_mtl.corpora.tree import (
    AUDIO,
    VIDEO,
    AudioIndex,
    best_copy,
    check_no_pointers,
    files_below,
    suffix_of,
    without_suffix,
)
from ser_mtl.corpora.utterances import FEATURES
from ser_mtl.corpora.values import SYNONYMS, VALUES, as_number
from ser_mtl.errors import UserError, some_of
from ser_mtl.safe_text import is_utf8

logger = logging.getLogger(__name__)


@dataclass
class LeftOut:
    """The files and rows of a corpus that are not read: their names, by reason."""

    names: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def add(self, reason: str, *names: str) -> None:
        """Note that these are left out, and why."""
        self.names[reason] += names

    def lines(self) -> list[str]:
        """A line for each reason: how many, why, and the first ones."""
        return [f"{len(names)} {reason}: {some_of(names)}" for reason, names in self.names.items() if names]


def read_described(description: Description, folder: Path, check_counts: bool = True) -> tuple[Dataset, LeftOut]:
    """Read a corpus as its description says.

    Args:
        description: of the corpus.
        folder: that holds it.
        check_counts: refuse an incomplete corpus.

    Returns:
        The utterances, sorted by id, and what was left out.

    Raises:
        UserError: the corpus is not there or is incomplete, or a table cannot be read.
    """
    if not folder.is_dir():
        raise UserError(f"--data_dir: no such folder: {folder}; {_how_to_get(description)}")
    found_there, left_out = list(files_below(folder)), LeftOut()
    paths = [path for path in found_there if is_utf8(path)]
    left_out.add("files have names that are not UTF-8", *(path for path in found_there if not is_utf8(path)))
    audio = [path for path in paths if suffix_of(path) in AUDIO]
    if not audio:
        raise UserError(_no_audio(description, folder, paths))
    check_no_pointers(folder, audio)
    found = _fields_of_names(description, audio, left_out)
    if not found:
        like = " or ".join(description.audio)
        raise UserError(
            f"{folder}: none of its {len(audio)} audio files, such as {audio[0]}, has a name like {like}; is it "
            f"{description.title}? {_how_to_get(description)}"
        )
    for table in description.tables:
        found = _with_table(description, table, folder, paths, found, left_out)
    rows = list(_rows(description, folder, found, left_out))
    return finished(description, rows, str(folder), left_out, check_counts)


def finished(
    description: Description, rows: list[dict], place: str, left_out: LeftOut, check_counts: bool
) -> tuple[Dataset, LeftOut]:
    """Rows to utterances: clean the labels, give each speaker one name, check the counts, assign folds.

    Raises:
        UserError: as `read_described`.
    """
    if not rows:
        raise UserError(f"{place}: no utterance of {description.title} is left: {'; '.join(left_out.lines())}")
    rows.sort(key=lambda row: row["id"])
    clean(rows, place)
    one_name_each(rows)
    for line in alike_people(rows):  # whoever has the corpus did not name its speakers
        logger.warning("%s: %s", place, line)
    if check_counts:
        _check_counts(description, rows, place, left_out)
    _one_fold_is_a_split(rows)
    for row, fold in zip(rows, assign_folds(rows, lambda index: f"{place}: {rows[index]['id']}"), strict=True):
        row["fold"] = fold
    return Dataset.from_list(rows, features=FEATURES), left_out


def _one_fold_is_a_split(rows: list[dict]) -> None:
    """Make an official split of a corpus in which a single fold is known: that is its test set."""
    if len({row["fold"] for row in rows}) == 2 and any(row["fold"] is None for row in rows):
        for row in rows:
            row["split"] = row["split"] or ("train" if row["fold"] is None else "test")
            row["fold"] = None


# --------------------------------------------------------------------------------------------------------------- files


def _fields_of_names(description: Description, audio: list[str], left_out: LeftOut) -> dict[str, dict[str, str]]:
    """The fields in the name of each audio file, by its path."""
    patterns = [compile_pattern(pattern) for pattern in description.audio]
    found = {}
    for path in audio:
        name = without_suffix(path)
        match = next(filter(None, (pattern.fullmatch(name) for pattern in patterns)), None)
        if match:
            found[path] = {"stem": name.rpartition("/")[2], "path": name} | match.groupdict()
        else:
            left_out.add("audio files have other names than the corpus's", path)
    return found


def _with_table(
    description: Description, table: Table, folder: Path, paths: list[str], found: dict[str, dict], left_out: LeftOut
) -> dict[str, dict]:
    """Add a table's fields to those of the audio files; files without a row are left out unless it is optional.

    Fields of the file's name take precedence over the table's.
    """
    rows = list(_rows_of_table(table, folder, paths))
    if not rows and not table.optional:
        raise UserError(
            f"{folder}: no rows in {' or '.join(table.files)}, which hold the labels of {description.title}; name "
            "the folder that holds both with --data_dir"
        )
    index, known, names = AudioIndex(list(found)), dict[str, dict[str, str]](), _names_read(description)
    for row in rows:
        wanted = fill(table.audio, row)
        files = index.find(wanted) if wanted else []
        for file in files:
            _check_one_label(table, names, file, known.get(file, {}), row)
            known[file] = known.get(file, {}) | row
        if wanted and not files and not table.optional:
            left_out.add("rows have no audio file", wanted)
    if table.optional:
        return {path: known.get(path, {}) | fields for path, fields in found.items()}
    if not known:
        raise UserError(
            f"{folder}: none of the {len(rows)} rows of {' or '.join(table.files)} has its audio file here, such as "
            f"{fill(table.audio, rows[0]) or table.audio}; name the folder that holds both with --data_dir"
        )
    left_out.add("audio files have no row in a table", *(path for path in found if path not in known))
    return {path: known[path] | fields for path, fields in found.items() if path in known}


def _names_read(description: Description) -> set[str]:
    """The fields that columns may be filled from."""
    own = {part for templates in description.columns.values() for text in templates for part in parts_in(text)}
    return own | {*COLUMNS, *SYNONYMS}


def _check_one_label(table: Table, names: set[str], file: str, known: dict, row: dict) -> None:
    """Check that two rows for the same file agree in the fields that are read."""
    for name in names & known.keys():
        if known.get(name) and row.get(name) and known[name] != row[name]:
            raise UserError(
                f"{' or '.join(table.files)}: {file} has two rows, with {name} {known[name]!r} and {row[name]!r}; keep "
                "one"
            )


def _rows_of_table(table: Table, folder: Path, paths: list[str]) -> Iterator[dict[str, str]]:
    patterns = [compile_pattern(pattern) for pattern in table.files]
    for path in paths:
        match = next(filter(None, (pattern.fullmatch(path) for pattern in patterns)), None)
        if match:
            parts = match.groupdict() | dict(table.fields)
            yield from (parts | row for row in rows_of(folder / path, table.line, table.encoding))


def _rows(description: Description, folder: Path, found: dict[str, dict], left_out: LeftOut) -> Iterator[dict]:
    """A row for each utterance; one of several copies of a file is taken."""
    copies: dict[str, dict[str, dict]] = defaultdict(dict)
    for path, fields in found.items():
        row = row_of(description, fields)
        if reason := row.pop("left out"):
            left_out.add(reason, path)
        else:
            copies[fill(description.id or "{path}", fields) or fields["path"]][path] = row
    for name, rows in copies.items():
        best = best_copy(list(rows))
        for path, row in rows.items():
            if row != rows[best]:
                raise UserError(
                    f"{folder}: {best} and {path} have the same id {name}, but different labels; remove one"
                )
        left_out.add("audio files are copies of others", *(path for path in rows if path != best))
        yield dict.fromkeys(FEATURES) | rows[best] | {"id": name, "path": str(folder / best)}


# --------------------------------------------------------------------------------------------------------------- labels


def row_of(description: Description, fields: dict[str, str]) -> dict:
    """The columns of an utterance from its fields; "left out" is the reason to leave it out, or None."""
    row: dict = {"left out": None, "corpus": description.name}
    for column in COLUMNS:
        names = (column, *(other for other, name in SYNONYMS.items() if name == column))
        templates = description.columns.get(column, tuple(f"{{{name}}}" for name in names))
        label = next(filter(None, (fill(template, fields) for template in templates)), None)
        word = _mapped(description, column, label)
        if label and not word and column in LEAVES_OUT:
            row["left out"] = row["left out"] or f"utterances have {column} {label!r}"
        row[column] = as_number(word) if column in VALUES else word or None
    return row


def _mapped(description: Description, column: str, label: str | None) -> str | None:
    words = description.maps.get(column)
    if not words or not label:
        return label
    return words.get(spelling(cleaned(label) or ""), words.get(REST, label))


# --------------------------------------------------------------------------------------------------------------- checks


def _check_counts(description: Description, rows: Sequence[dict], place: str, left_out: LeftOut) -> None:
    """Check the numbers of utterances, speakers and labels against the published ones."""
    if not description.counts:
        return
    editions = [(list(_differences(counts, rows)), counts) for counts in description.counts]
    differences, nearest = min(editions, key=lambda pair: (len(pair[0]), abs(pair[1]["utterances"] - len(rows))))
    if not differences:
        return
    edition = f", {nearest['of']}" if nearest.get("of") else ""
    line = f"not exactly {description.title}{edition}: {'; '.join(differences)}"
    if description.other_editions:
        return left_out.add(f"numbers differ from those of the known edition ({line})", *differences)
    raise UserError(
        f"{place}: {line}. Unpack it again into an empty folder, or turn check_counts off "
        "(--no_check_counts) to use the utterances that are there"
    )


def _differences(expected: dict, rows: Sequence[dict]) -> Iterator[str]:
    for name, number in expected.items():
        if name == "of":
            continue
        if isinstance(number, dict):
            counts = Counter(row[name] for row in rows)
            yield from (
                f"{name} {label} {expected_count} expected, {counts[label]} found"
                for label, expected_count in number.items()
                if counts[label] != expected_count
            )
            continue
        found = len(rows) if name == "utterances" else len({row["speaker"] for row in rows} - {None})
        if found != number:
            yield f"{number} {name} expected, {found} found"


def _how_to_get(description: Description) -> str:
    return f"get it from {description.address} " if description.address else "see --data_dir"


def _no_audio(description: Description, folder: Path, paths: list[str]) -> str:
    if videos := [path for path in paths if suffix_of(path) in VIDEO]:
        return (
            f"{folder}: {len(videos)} videos such as {videos[0]}, but no audio; extract their sound beside them: "
            "`ffmpeg -i X.mp4 -ac 1 -ar 16000 X.wav`"
        )
    return f"{folder}: no audio files of {description.title} here; {_how_to_get(description)}"
