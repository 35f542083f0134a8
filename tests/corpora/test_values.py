"""Valence, activation and dominance are read as the numbers that they are, under all names of their columns."""

import math
from pathlib import Path

import numpy as np
import pytest
import soundfile
from datasets import Dataset
from helpers.iemocap_tree import write_tree

from ser_mtl.corpora.dataset import read_dataset
from ser_mtl.corpora.described import read_described
from ser_mtl.corpora.description import read_description
from ser_mtl.corpora.folder import read_folder, write_metadata
from ser_mtl.corpora.iemocap import read_iemocap
from ser_mtl.corpora.split_record import hash_of_annotations
from ser_mtl.corpora.targets import value_scales, with_targets
from ser_mtl.errors import Notice, UserError


def folder_of(path: Path, table: str) -> Path:
    """A folder corpus with short files of the names a to d."""
    path.mkdir()
    for name in "abcd":
        soundfile.write(path / f"{name}.wav", np.zeros(160), 16_000)
    (path / "metadata.csv").write_text(table)
    return path


def values_of(name: str) -> tuple[float, float, float]:
    """A consensus for every utterance of IEMOCAP's tree."""
    number, session = int(name[-3:]), int(name[4])
    return 1 + number / 2, 5 - session / 2, 2.25 if "impro" in name else 3.6667


def test_iemocap_has_the_consensus_of_every_utterance(tmp_path):
    truth = write_tree(tmp_path, values_of)
    with pytest.warns(Notice):
        corpus = read_iemocap(tmp_path, check_counts=False)
    assert len(corpus) == len(truth)
    found = zip(corpus["valence"], corpus["activation"], corpus["dominance"], strict=True)
    for name, values in zip(corpus["id"], found, strict=True):
        assert values == pytest.approx(values_of(name), abs=1e-6), name


def test_a_folder_has_values_and_arousal_is_activation(tmp_path):
    table = "file_name,speaker,valence,arousal\na.wav,x,-1.5,3\nb.wav,y,n/a,\nc.wav,x,0,2.25\nd.wav,y,,1e0\n"
    with pytest.warns(Notice, match="'n/a', in 1 rows, is read as an empty cell"):
        corpus = read_folder([folder_of(tmp_path / "mine", table)])
    assert corpus["valence"][:] == [-1.5, None, 0, None]
    assert corpus["activation"][:] == [3, None, 2.25, 1]
    assert corpus["dominance"][:] == [None] * 4


def test_a_comma_may_be_the_decimal_sign(tmp_path):
    corpus = read_folder([folder_of(tmp_path / "mine", "file_name;speaker;valence\na.wav;x;3,5\nb.wav;y;2\n")])
    assert corpus["valence"][:] == [3.5, 2]


@pytest.mark.parametrize("cell", ["high", "3 of 5", "inf", "1,2,3", "nan5", "1e300"])
def test_a_cell_that_is_no_number_stops_with_its_row(tmp_path, cell):
    folder = folder_of(tmp_path / "mine", f'file_name,speaker,valence\na.wav,x,1.0\nb.wav,y,"{cell}"\n')
    with pytest.raises(UserError, match=r"metadata\.csv, row 3: column 'valence' holds .* which is not a number"):
        read_folder([folder])


def test_a_column_of_words_is_named_and_not_read(tmp_path):
    folder = folder_of(tmp_path / "mine", "file_name,speaker,valence\na.wav,x,positive\nb.wav,y,negative\n")
    with pytest.warns(Notice, match="column 'valence' is not read: it holds no numbers, but words such as 'positive'"):
        assert read_folder([folder])["valence"][:] == [None, None]


@pytest.mark.parametrize(
    ("columns", "named"),
    [("activation,arousal", "'activation' appears twice"), ("x,Arousal", "did you mean 'arousal'")],
)
def test_a_column_that_is_there_twice_or_misspelt_stops(tmp_path, columns, named):
    folder = folder_of(tmp_path / "mine", f"file_name,speaker,{columns}\na.wav,x,1,2\n")
    with pytest.raises(UserError, match=named):
        read_folder([folder])


def test_written_values_are_read_back_the_same(tmp_path):
    table = "file_name,speaker,valence,dominance\na.wav,x,-0.1,3.3333\nb.wav,y,1e-7,\n"
    folder = folder_of(tmp_path / "mine", table)
    corpus = read_folder([folder])
    (folder / "metadata.csv").unlink()
    write_metadata(corpus, folder / "metadata.csv")
    assert (
        "activation" not in (folder / "metadata.csv").read_text() and "3.3333," in (folder / "metadata.csv").read_text()
    )
    assert read_folder([folder]).to_list() == corpus.to_list()


def test_a_dataset_has_values_and_nan_is_none(tmp_path):
    folder_of(tmp_path / "mine", "")
    columns = {"file_name": ["a.wav", "b.wav"], "speaker": ["x", "y"], "arousal": [math.nan, 2.5], "valence": [1, 2]}
    corpus = read_dataset(Dataset.from_dict(columns), tmp_path / "mine")
    assert (corpus["activation"][:], corpus["valence"][:]) == ([None, 2.5], [1, 2])
    with pytest.raises(UserError, match="'activation' and 'arousal' mean the same"):
        read_dataset(Dataset.from_dict(columns | {"activation": [1.0, 2.0]}), tmp_path / "mine")


def test_a_described_corpus_has_values_and_arousal_is_activation(tmp_path):
    folder = folder_of(tmp_path / "mine", "file,speaker,arousal,valence\na,x,4.5,NaN\nb,y,,2\nc,z,?,1\nd,w,1,1\n")
    page = tmp_path / "mine.toml"
    page.write_text('[[tables]]\nfiles = "metadata.csv"\naudio = "{file}"\n')
    corpus, _ = read_described(read_description(str(page)), folder)
    assert corpus["activation"][:] == [4.5, None, None, 1] and corpus["valence"][:] == [None, 2, 1, 1]


def small(valence: list[float | None]) -> Dataset:
    names = {"id": [str(i) for i in range(len(valence))], "text": [None] * len(valence)}
    more = {name: [None] * len(valence) for name in ("emotion", "gender", "style", "activation", "dominance", "raters")}
    return Dataset.from_dict(names | more | {"valence": valence})


def test_a_scale_is_the_mean_and_deviation_of_train():
    assert value_scales(small([1.0, None, 2.0, 6.0]), ["emotion", "valence"]) == {
        "valence": pytest.approx([3, math.sqrt(14 / 3)])
    }
    assert value_scales(small([1.0]), ["emotion"]) is None
    with pytest.raises(
        UserError, match="--tasks valence: the utterances of train have fewer than two different values"
    ):
        value_scales(small([2.0, None, 2.0]), ["valence"])


def test_targets_are_nan_where_not_annotated_and_zero_is_a_value():
    targets = with_targets(small([0.0, None, -2.5]), {}, None, values=["valence"]).with_format("numpy")[
        "valence_labels"
    ]
    np.testing.assert_array_equal(np.asarray(targets, dtype=np.float32), np.float32([0, math.nan, -2.5]))


def test_the_hash_of_a_corpus_changes_with_trained_values_alone():
    first, second = small([1.0, 2.0]), small([1.0, 3.0])
    assert hash_of_annotations(first) == hash_of_annotations(second)
    assert hash_of_annotations(first, ["valence"]) != hash_of_annotations(second, ["valence"])
