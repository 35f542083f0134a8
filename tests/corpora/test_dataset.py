"""Pins a `datasets.Dataset` as a corpus: what is filled in, and the line each mistake gives."""

from pathlib import Path

import pandas as pd
import pytest
from datasets import ClassLabel, Dataset, Features, Value

from ser_mtl.corpora.dataset import read_dataset
from ser_mtl.corpora.folder import read_folder
from ser_mtl.corpora.utterances import FEATURES
from ser_mtl.errors import UserError

NAMES = [f"{speaker}{number}.wav" for speaker in "abcdefg" for number in range(3)]


@pytest.fixture
def folder(tmp_path) -> Path:
    for name in NAMES:
        (tmp_path / name).touch()
    return tmp_path


def test_missing_columns_are_not_annotated(folder):
    path = str(folder / "a0.wav")
    corpus = read_dataset(Dataset.from_dict({"path": [path], "fold": [3], "emotion": [" sad "], "text": [""]}))
    assert corpus.features == FEATURES
    assert corpus.to_list() == [
        dict.fromkeys(FEATURES) | {"id": path, "path": path, "fold": 3, "emotion": "sad"},
    ]


def test_a_dataset_is_read_like_the_same_table_in_a_folder(folder):
    table = pd.DataFrame({"file_name": NAMES[::-1]})
    table["speaker"] = table["file_name"].str[0]
    table["gender"] = ["female" if speaker < "d" else "male" for speaker in table["speaker"]]
    table.to_csv(folder / "metadata.csv", index=False)
    corpus = read_dataset(Dataset.from_pandas(table), folder)
    assert corpus.remove_columns("corpus").to_list() == read_folder([folder]).remove_columns("corpus").to_list()
    assert set(corpus["fold"]) == {1, 2, 3, 4, 5}


def test_a_complete_corpus_is_returned_unchanged(folder):
    rows = [
        dict.fromkeys(FEATURES)
        | {"id": name, "path": str(folder / name), "corpus": "mine", "fold": 2, "valence": 2.5}
        | {"raters": [{"rater": "C-E1", "categories": ["Anger"], "comment": None}]}
        for name in NAMES
    ]
    for row in rows:
        row["raters"][0] |= dict.fromkeys(("valence", "activation", "dominance"))
    corpus = Dataset.from_list(rows, features=FEATURES)
    for dataset in (corpus, corpus.with_format("numpy"), corpus.shuffle(seed=0)):
        completed = read_dataset(dataset)
        assert completed.to_list() == rows
        assert completed.features == FEATURES


def test_class_labels_become_their_names(folder):
    features = Features(file_name=Value("string"), fold=Value("int64"), emotion=ClassLabel(names=["sad", "angry"]))
    rows = {"file_name": NAMES[:3], "fold": [1, 2, 3], "emotion": ["angry", "sad", None]}
    assert read_dataset(Dataset.from_dict(rows, features), folder)["emotion"][:] == ["angry", "sad", None]


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"file_nam": ["a0.wav"]}, r"unknown columns: 'file_nam' \(did you mean 'file_name'\?\)"),
        ({"fold": [1]}, "no column 'path' or 'file_name'"),
        ({"file_name": [], "fold": []}, "holds no rows"),
        ({"file_name": ["a0.wav"], "fold": [1], "emotion": [3]}, "column 'emotion' holds values that are not string"),
        ({"file_name": ["a0.wav"], "fold": [1.5]}, "column 'fold' holds values that are not int32"),
        ({"file_name": ["a0.wav"], "fold": ["one"]}, "column 'fold' holds values that are not int32"),
        ({"file_name": ["a0.wav"], "fold": [1], "raters": ["me"]}, "column 'raters' holds values that are not"),
        ({"file_name": ["a0.wav"], "fold": [6]}, "row 0: fold 6 is not one of 1, 2, 3, 4, 5"),
        ({"file_name": ["a0.wav", "a1.wav"], "fold": [1, None]}, "row 1: no 'fold', but other rows have one"),
        ({"file_name": ["a0.wav", "a1.wav"], "speaker": ["x", " "]}, "row 1: neither 'fold' nor 'speaker'"),
        ({"file_name": ["a0.wav", None], "fold": [1, 2]}, "row 1: neither 'path' nor 'file_name'"),
        ({"file_name": ["a0.wav", "a0.wav"], "fold": [1, 2]}, "row 1: id 'a0.wav' is already in row 0"),
        ({"file_name": ["a0.wav", "a1.wav"], "id": ["u", "u"], "fold": [1, 2]}, "row 1: id 'u' is already in row 0"),
        ({"file_name": ["a0.wav", "x.wav", "y.wav"], "fold": [1, 2, 3]}, r"row 1: no audio file .*x\.wav \(2 missing"),
    ],
)
def test_a_mistake_gives_one_line_with_its_place(folder, columns, said):
    with pytest.raises(UserError, match=f"^dataset(, |: ){said}") as stop:
        read_dataset(Dataset.from_dict(columns), folder)
    assert "\n" not in str(stop.value)
