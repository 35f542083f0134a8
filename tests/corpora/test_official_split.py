"""Official splits as they are, labels renamed, and the one hint for corpora with few speakers or none."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
from datasets import Audio, ClassLabel, Dataset, DatasetDict, load_dataset
from helpers import described_trees as trees
from helpers.described_trees import write_names

from ser_mtl.corpora.folder import read_folder, write_metadata
from ser_mtl.corpora.folds import split
from ser_mtl.corpora.hub import _file_of
from ser_mtl.corpora.leaks import find_leaks, leaks_line
from ser_mtl.corpora.loading import load_corpus, read_corpus
from ser_mtl.corpora.mapping import with_map
from ser_mtl.errors import UserError

ROWS = [
    # file, emotion, speaker, split
    ("a.wav", "anger", "x", "train"),
    ("b.wav", "joy", "x", "train"),
    ("c.wav", "joy", "y", "train"),
    ("d.wav", "anger", "X", "test"),
    ("e.wav", "joy", "z", "test"),
    ("f.wav", "disgust", "w", "validation"),
]


def write_table(folder, rows, head="file_name,emotion,speaker,split"):
    write_names(folder, (row[0] for row in rows))
    (folder / "metadata.csv").write_text("\n".join([head, *(",".join(map(str, row)) for row in rows)]) + "\n")
    return folder


def ids(parts) -> dict[str, str]:
    return {name: "".join(one[0] for one in part["id"]) for name, part in parts.items()}


def test_an_official_split_is_taken_as_it_is(tmp_path):
    corpus = read_folder([write_table(tmp_path / "mine", ROWS)])
    for fold in (None, 1):
        assert ids(split(corpus, fold)) == {"train": "abc", "dev": "f", "test": "de"}
    assert ids(split(corpus, dev="none")) == {"train": "abc", "test": "de"}
    assert corpus["fold"][:] == [None, None, None, 1, 1, None]


def test_speakers_on_both_sides_of_an_official_split_are_counted(tmp_path):
    parts = split(read_folder([write_table(tmp_path / "mine", ROWS)]))
    leaks = find_leaks(parts)
    assert leaks["test_speakers_in_train"] == {"speakers": 1, "utterances": 1}
    assert "1 test utterances are by 1 speakers of train" in leaks_line(leaks)


def test_without_a_dev_set_of_its_own_dev_is_drawn_from_train(tmp_path):
    rows = [*ROWS[:-1], ("g.wav", "joy", "v", "train"), ("h.wav", "anger", "u", "train")]
    parts = split(read_folder([write_table(tmp_path / "mine", rows)]))
    assert ids(parts)["test"] == "de" and sorted(ids(parts)["train"] + ids(parts)["dev"]) == list("abcgh")
    assert len(set(parts["dev"]["speaker"])) == 1


@pytest.mark.parametrize(
    ("fold", "dev", "said"),
    [(2, "dialog", r"--fold 2: the corpus has an official split"), (1, "session", r"--dev session: .*official split")],
)
def test_other_folds_of_an_official_split_are_refused(tmp_path, fold, dev, said):
    with pytest.raises(UserError, match=said):
        split(read_folder([write_table(tmp_path / "mine", ROWS)]), fold, dev)


@pytest.mark.parametrize(
    ("rows", "head", "said"),
    [
        ([("a.wav", "x", "train"), ("b.wav", "y", "")], "file_name,speaker,split", "row 3: no 'split', but other"),
        ([("a.wav", "x", "train"), ("b.wav", "y", "late")], "file_name,speaker,split", "row 3: split 'late' is not"),
        ([("a.wav", "x", "train"), ("b.wav", "y", "dev")], "file_name,speaker,split", "no row is 'test'"),
        ([("a.wav", 1, "train"), ("b.wav", 2, "test")], "file_name,fold,split", "row 2: has both 'fold' and 'split'"),
    ],
)
def test_a_faulty_column_split_is_named(tmp_path, rows, head, said):
    with pytest.raises(UserError, match=f"metadata.csv.*{said}"):
        read_folder([write_table(tmp_path / "mine", rows, head)])


def test_a_split_in_one_of_two_folders_is_refused(tmp_path):
    official = write_table(tmp_path / "official", ROWS)
    other = write_table(tmp_path / "other", [row[:3] for row in ROWS], "file_name,emotion,speaker")
    with pytest.raises(UserError, match=r"official has a column 'split' and .*other has none"):
        read_folder([other, official])


def test_a_written_split_is_read_back(tmp_path):
    corpus = read_folder([write_table(tmp_path / "mine", ROWS)])
    (tmp_path / "mine/metadata.csv").unlink()
    write_metadata(corpus, tmp_path / "mine/metadata.csv")
    assert read_folder([tmp_path / "mine"]).to_list() == corpus.to_list()


# ----------------------------------------------------------------------------------------------- few speakers


def test_two_speakers_are_told_to_train_without_dev(tmp_path):
    corpus = load_corpus("tess", write_names(tmp_path / "tess", trees.tess()))
    with pytest.raises(UserError, match=r"has two speakers: one is the test.*--dev none --selection last$"):
        split(corpus, 1)
    parts = split(corpus, 1, "none")
    assert len(parts["train"]) == len(parts["test"]) == 1400


def test_four_speakers_are_told_their_four_folds(tmp_path):
    corpus = load_corpus("savee", write_names(tmp_path / "savee", trees.savee()))
    assert ids(split(corpus, 4)).keys() == {"train", "dev", "test"}
    with pytest.raises(UserError, match=r"--fold 5: fold 5 holds no utterance; folds with utterances: 1, 2, 3, 4$"):
        split(corpus, 5)


def test_nobodys_recordings_are_told_how_to_be_split(tmp_path):
    page = tmp_path / "calls.toml"
    page.write_text('audio = "{emotion}/{number}"')
    root = write_names(tmp_path / "calls", ["sad/1.wav", "angry/1.wav"])
    with pytest.raises(
        UserError, match=r"angry/1: neither 'fold' nor 'speaker'.*a column 'split' \(train, dev, test\)"
    ):
        load_corpus(str(page), root)


def test_without_an_official_split_a_fold_is_required(tmp_path):
    corpus = load_corpus("savee", write_names(tmp_path / "savee", trees.savee()))
    with pytest.raises(UserError, match="--fold: is required, 1 to 5"):
        split(corpus)


# ----------------------------------------------------------------------------------------------- labels


def test_a_map_renames_joins_and_leaves_out(tmp_path):
    corpus = read_folder([write_table(tmp_path / "mine", ROWS)])
    mapped, left_out = with_map(corpus, ["anger=joy", "JOY=happy", "disgust="])
    assert mapped["emotion"][:] == ["joy", "happy", "happy", "joy", "happy"] and mapped.features == corpus.features
    assert left_out == ["1 utterances are 'disgust' (--map)"]
    assert with_map(corpus, {"anger": "joy", "joy": "happy", "disgust": ""})[0].to_list() == mapped.to_list()


def test_a_map_of_gender_leaves_nobody_out(tmp_path):
    rows = [("a.wav", "m", "x"), ("b.wav", "male", "y"), ("c.wav", "?", "z")]
    folder = write_table(tmp_path / "mine", rows, "file_name,gender,speaker")
    corpus = load_corpus("folder", folder, label_map=["gender:m=male", "gender:?="])
    assert corpus["gender"][:] == ["male", "male", None]


def test_a_map_leaves_the_folds_as_they_are(tmp_path):
    rows = [(f"{speaker}{n}.wav", emotion, speaker) for speaker in "abcdef" for n, emotion in enumerate(["sad", "joy"])]
    folder = write_table(tmp_path / "mine", rows, "file_name,emotion,speaker")
    corpus, mapped = load_corpus("folder", folder), load_corpus("folder", folder, label_map=["joy="])
    folds = dict(zip(corpus["id"], corpus["fold"], strict=True))
    assert {name: folds[name] for name in mapped["id"]} == dict(zip(mapped["id"], mapped["fold"], strict=True))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["anger"], "--map anger: write OLD=NEW"),
        (["=x"], "names no label"),
        (["anger=a", "Anger=b"], "'Anger' appears twice"),
        (["angre=angry"], r"no utterance has this emotion \(did you mean anger\?\); it has anger, disgust, joy"),
        (["anger=", "joy=", "disgust="], "leaves no utterance"),
    ],
)
def test_a_map_that_means_nothing_is_one_line(tmp_path, words, said):
    with pytest.raises(UserError, match=said):
        load_corpus("folder", write_table(tmp_path / "mine", ROWS), label_map=words)


# ----------------------------------------------------------------------------------------------- the Hub


def dataset(tmp_path, **columns) -> Dataset:
    files = []
    for number in range(4):
        files.append(str(tmp_path / f"{number}.wav"))
        soundfile.write(files[-1], np.full(16, number / 100), 16000)
    return Dataset.from_dict({"audio": files, **columns}).cast_column("audio", Audio())


def test_a_dataset_of_the_hub_is_read_with_the_bytes_it_holds(tmp_path):
    rows = dataset(tmp_path, label=[0, 1, 0, 1], speaker_id=[7, 8, 9, 7], transcription=["a b", "", "c", "d"])
    rows = rows.cast_column("label", ClassLabel(names=["neutral", "angry"]))
    saved = tmp_path / "made"
    saved.mkdir()
    rows.to_parquet(saved / "train.parquet")
    corpus = load_corpus("hub", str(saved))
    assert corpus["emotion"][:] == ["neutral", "angry", "neutral", "angry"]
    assert corpus["speaker"][:] == ["7", "8", "9", "7"] and corpus["text"][:] == ["a b", None, "c", "d"]
    assert set(corpus["split"]) == {None}
    values = [soundfile.read(path)[0][0] for path in corpus["path"]]
    assert np.allclose(values, [0, 0.01, 0.02, 0.03], atol=1e-4)


def test_train_and_test_of_the_hub_are_an_official_split(tmp_path):
    rows = dataset(tmp_path, emotion=["sad", "angry", "sad", "angry"])
    saved = tmp_path / "made"
    saved.mkdir()
    parts = DatasetDict({"train": rows.select([0, 1]), "validation": rows.select([2]), "test": rows.select([3])})
    for name, part in parts.items():
        part.to_parquet(saved / f"{name}-00000-of-00001.parquet")
    corpus = load_corpus("hub", str(saved))
    assert sorted(corpus["split"]) == ["dev", "test", "train", "train"]


def test_a_dataset_without_speakers_says_which_columns_it_has(tmp_path):
    saved = tmp_path / "made"
    saved.mkdir()
    dataset(tmp_path, emotion=["sad"] * 4, who=["x"] * 4).to_parquet(saved / "train.parquet")
    with pytest.raises(UserError, match=r"columns \(audio, emotion, who\) none is known to hold speakers.*my.toml"):
        load_corpus("hub", str(saved))
    page = tmp_path / "mine.toml"
    page.write_text(f'hub = "{saved}"\n[columns]\nspeaker = "{{who}}"\n[maps.emotion]\nsad = "blue"\n')
    assert read_corpus(str(page)).corpus["emotion"][:] == ["blue"] * 4


def test_rows_without_audio_and_files_of_this_machine_are_left_out(tmp_path, monkeypatch):
    saved = tmp_path / "made"
    saved.mkdir()
    rows = dataset(tmp_path, emotion=["sad", "angry"] * 2, speaker=["x", "y"] * 2).cast_column("audio", Audio(False))
    own = {"bytes": (tmp_path / "0.wav").read_bytes(), "path": "0.wav"}
    mine = {"bytes": None, "path": str(tmp_path / "1.wav")}
    audio = [own, mine, None, {"bytes": None, "path": None}]
    rows.remove_columns("audio").add_column("audio", audio).cast_column("audio", Audio(False)).to_parquet(
        saved / "train.parquet"
    )
    reading = read_corpus("hub", str(saved), check_counts=False)  # a folder of one's own may name its own files
    assert len(reading.corpus) == 2
    made = load_dataset(str(saved))
    monkeypatch.setattr("ser_mtl.corpora.hub.load_dataset", lambda *_: made)
    reading = read_corpus("hub", "somebody/made", check_counts=False)
    assert len(reading.corpus) == 1
    assert reading.left_out == [
        "3 rows have no audio in the dataset: made/train/000001, made/train/000002, made/train/000003"
    ]


def test_labels_without_a_name_are_none_or_named(tmp_path):
    rows = dataset(tmp_path, emotion=[0, None, -1, 1], speaker=list("abcd"))
    rows = rows.cast_column("emotion", ClassLabel(names=["sad", "angry"]))
    file = tmp_path / "made/train.parquet"
    file.parent.mkdir()
    rows.to_parquet(file)
    assert load_corpus("hub", str(file.parent))["emotion"][:] == ["sad", None, None, "angry"]
    table = pq.read_table(file)
    pq.write_table(table.set_column(1, table.schema.field(1), pa.array([0, 1, 7, 0])), file)
    with pytest.raises(UserError, match=r"train 2: emotion: is the label 7, .* names for 0 to 1"):
        load_corpus("hub", str(file.parent))


def test_a_dataset_saved_to_disk_is_read_however_long_its_path(tmp_path):
    saved = tmp_path / ("long " * 30) / ("path " * 30)
    rows = dataset(tmp_path, emotion=["sad", "angry"] * 2, speaker=list("abcd")).cast_column("audio", Audio(False))
    audio = [{"bytes": (tmp_path / "0.wav").read_bytes(), "path": None}] * 4
    rows.remove_columns("audio").add_column("audio", audio).cast_column("audio", Audio(False)).save_to_disk(saved)
    assert load_corpus("hub", str(saved))["emotion"][:] == ["sad", "angry", "sad", "angry"]


def test_a_name_that_no_file_can_have_is_no_audio():
    assert _file_of("ada/talks", {"bytes": None, "path": "a\0b.wav"}) is None


def test_a_repository_that_is_not_there_is_one_line(hub):
    with pytest.raises(UserError, match="--data_dir nobody/nothing: cannot be loaded as a dataset"):
        load_corpus("hub", "nobody/nothing")
