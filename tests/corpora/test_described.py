"""Described corpora: names and tables of the real ones give the published counts and the labels that they mean."""

from collections import Counter
from pathlib import Path

import pytest
from helpers import described_trees as trees
from helpers.described_trees import write_names

from ser_mtl.corpora.description import DESCRIBED, read_description
from ser_mtl.corpora.folds import split
from ser_mtl.corpora.leaks import find_leaks
from ser_mtl.corpora.loading import load_corpus, read_corpus
from ser_mtl.errors import UserError

WHOLE = {
    "ravdess": lambda root: write_names(root, trees.ravdess()),
    "crema-d": lambda root: write_names(root, trees.crema_d()),
    "emo-db": lambda root: write_names(root, trees.emo_db()),
    "tess": lambda root: write_names(root, trees.tess()),
    "savee": lambda root: write_names(root, trees.savee()),
    "nemo": trees.nemo,
    "msp-improv": trees.msp_improv,
    "iemocap-csv": trees.iemocap_csv,
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A whole corpus by name, read with its counts checked."""
    read = {}

    def reading(name: str):
        if name not in read:
            read[name] = read_corpus(name, WHOLE[name](tmp_path_factory.mktemp(name) / "corpus"))
        return read[name]

    return reading


def one(corpus, ending: str) -> dict:
    (row,) = [row for row in corpus.to_list() if row["id"].endswith(ending)]
    return row


# ----------------------------------------------------------------------------------------------- whole corpora


@pytest.mark.parametrize("name", WHOLE)
def test_a_whole_corpus_has_the_published_counts(whole, name):
    """They are checked while it is read; here that they are those of `corpora.md`, and that each row has a fold."""
    utterances = {"ravdess": 2452, "crema-d": 7442, "emo-db": 535, "tess": 2800, "savee": 480, "nemo": 4481}
    utterances |= {"msp-improv": 7798, "iemocap-csv": 5531}
    speakers = {"ravdess": 24, "crema-d": 91, "emo-db": 10, "tess": 2, "savee": 4, "nemo": 9}
    speakers |= {"msp-improv": 12, "iemocap-csv": 10}
    corpus = whole(name).corpus
    assert (len(corpus), len(corpus.unique("speaker"))) == (utterances[name], speakers[name])
    assert set(corpus["corpus"]) == {name} and set(corpus["fold"]) <= {1, 2, 3, 4, 5}
    assert not {None} & set(corpus["emotion"]) and not {None} & set(corpus["gender"])


@pytest.mark.parametrize(
    ("name", "ending", "expected"),
    [
        ("ravdess", "03-01-05-02-01-02-07",
         {"emotion": "angry", "style": "strong", "speaker": "actor07", "gender": "male",
          "text": "Kids are talking by the door."}),
        ("ravdess", "03-02-02-01-02-01-24",
         {"emotion": "calm", "style": "normal", "speaker": "actor24", "gender": "female",
          "text": "Dogs are sitting by the door."}),
        ("crema-d", "1091_WSI_FEA_XX",
         {"emotion": "fearful", "speaker": "1091", "gender": "female", "text": "We'll stop in a couple of minutes."}),
        ("crema-d", "1090_TIE_SAD_XX", {"emotion": "sad", "speaker": "1090", "gender": "male"}),
        ("emo-db", "03a01Fa",
         {"emotion": "happy", "speaker": "03", "gender": "male", "text": "Der Lappen liegt auf dem Eisschrank."}),
        ("emo-db", "16a02La", {"emotion": "bored", "speaker": "16", "gender": "female"}),
        ("tess", "OA_bite_neutral", {"emotion": "neutral", "speaker": "OAF", "text": "Say the word bite."}),
        ("tess", "YAF_baa_ps", None),
        ("tess", "YAF_bab_ps", {"emotion": "surprised", "speaker": "YAF", "gender": "female"}),
        ("savee", "JK_su03", {"emotion": "surprised", "speaker": "JK", "gender": "male", "text": None}),
        ("savee", "DC_a03", {"emotion": "angry", "speaker": "DC"}),
        ("nemo", "EB0_anger_12",
         {"emotion": "angry", "speaker": "EB0", "gender": "female", "text": "Zdanie 12, ż."}),
    ],
)  # fmt: skip
def test_a_row_is_what_its_name_says(whole, name, ending, expected):
    found = [row for row in whole(name).corpus.to_list() if row["id"].endswith(ending)]
    assert len(found) == (expected is not None)
    if expected:
        assert {column: found[0][column] for column in expected} == expected


def test_speech_and_song_of_an_actor_are_one_person_in_one_fold(whole):
    corpus = whole("ravdess").corpus
    channels = {(name.split("-")[1], speaker) for name, speaker in zip(corpus["id"], corpus["speaker"], strict=True)}
    assert ("02", "actor18") not in channels and len(channels) == 47
    assert len(set(zip(corpus["speaker"], corpus["fold"], strict=True))) == 24


def test_speech_alone_and_song_alone_are_whole_too(tmp_path):
    for channel, utterances in (("speech", 1440), ("song", 1012)):
        assert len(load_corpus("ravdess", write_names(tmp_path / channel, trees.ravdess(channel)))) == utterances


def test_iemocaps_speaker_is_in_the_last_field_of_the_name(whole):
    reading = whole("iemocap-csv")
    for row in reading.corpus.to_list()[::97]:
        session, sex = row["id"][3:5], row["id"].rpartition("_")[2][0]
        assert row["speaker"] == f"Ses{session}{sex}" and row["gender"] == {"F": "female", "M": "male"}[sex]
        assert row["fold"] == int(session) and row["dialog"] == row["id"].rpartition("_")[0]
        assert row["style"] == {"impro": "improvised", "scrip": "scripted"}[row["id"][7:12]]
    assert any(line.startswith("2507 utterances have emotion 'xxx'") for line in reading.left_out)


def test_improvs_label_is_what_listeners_heard_and_its_folds_are_sessions(whole):
    reading = whole("msp-improv")
    row = next(row for row in reading.corpus.to_list() if "-M06-" in row["id"])
    assert (row["speaker"], row["gender"], row["fold"], row["valence"]) == ("M06", "male", 5, 3.25)
    assert row["dialog"].startswith("session06-S")
    assert any(line.startswith("555 utterances have emotion 'X'") for line in reading.left_out)
    assert set(reading.corpus["style"]) == {"natural", "read", "improvised"}
    split(reading.corpus, 1)  # two actors of a session share its dialogs


# ----------------------------------------------------------------------------------------------- copies and parts


def test_a_second_copy_is_left_out_and_named(tmp_path):
    names = list(trees.ravdess("speech"))
    copies = [f"audio_speech_actors_01-24/{name.partition('/')[2]}" for name in names]
    reading = read_corpus("ravdess", write_names(tmp_path / "kaggle", names + copies))
    assert len(reading.corpus) == 1440
    assert any(line.startswith("1440 audio files are copies of others") for line in reading.left_out)


def test_a_lossless_file_is_taken_before_an_mp3_of_it(tmp_path):
    names = ["AudioMP3/1001_IEO_ANG_HI.mp3", "AudioWAV/1001_IEO_ANG_HI.wav", "AudioWAV/1002_IEO_SAD_LO.wav"]
    corpus = load_corpus("crema-d", write_names(tmp_path / "crema", names), check_counts=False)
    assert [path.rpartition("/")[2] for path in corpus["path"]] == ["1001_IEO_ANG_HI.wav", "1002_IEO_SAD_LO.wav"]


@pytest.mark.parametrize("change", [str.lower, str.upper, lambda name: name.rpartition("/")[2]])
@pytest.mark.parametrize(
    ("name", "as_it_is"),
    [("emo-db", "wav/03a01Fa.wav"), ("savee", "ALL/DC_sa01.wav"), ("tess", "x/OAF_Fear/OAF_back_fear.wav")],
)
def test_names_in_another_case_and_flat_folders_are_read(tmp_path, name, as_it_is, change):
    emotions = {"emo-db": "happy", "savee": "sad", "tess": "fearful"}
    corpus = load_corpus(name, write_names(tmp_path / "corpus", [change(as_it_is)]), check_counts=False)
    assert corpus["emotion"][:] == [emotions[name]] and corpus["speaker"][0].upper() in as_it_is


def test_a_part_is_refused_with_what_differs_unless_counts_are_off(tmp_path):
    names = [name for name in trees.ravdess("speech") if not name.endswith("-06-01-01-01-03.wav")]
    root = write_names(tmp_path / "part", names[:-1])
    with pytest.raises(
        UserError,
        match=r"not exactly RAVDESS, speech: 1440 utterances expected, 1438 found; .*no_check_counts",
    ):
        load_corpus("ravdess", root)
    assert len(load_corpus("ravdess", root, check_counts=False)) == 1438


def test_files_of_other_names_and_labels_are_left_out_with_the_reason(tmp_path):
    names = [*trees.emo_db(), "wav/readme.wav", "wav/03a01Xa.wav", "._03a01Wa.wav", "__MACOSX/wav/03a01Wz.wav"]
    reading = read_corpus("emo-db", write_names(tmp_path / "emo", names))
    assert sorted(line.partition(":")[0] for line in reading.left_out) == [
        "1 audio files have other names than the corpus's", "1 utterances have emotion 'X'",
    ]  # fmt: skip


def test_pointers_of_git_lfs_are_no_recordings(tmp_path):
    root = write_names(tmp_path / "clone", list(trees.crema_d())[:5])
    pointer = root / "AudioWAV/1001_WSI_SAD_XX.wav"
    pointer.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 70000\n")
    with pytest.raises(UserError, match=r"1001_WSI_SAD_XX.wav: is a pointer of git LFS.*1 of 6.*git lfs pull"):
        load_corpus("crema-d", root, check_counts=False)


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ([], "no audio files of SAVEE here; get it from http://kahlan"),
        (["a.txt"], "no audio files of SAVEE here"),
        (["DC/a01.mp4"], "1 videos such as DC/a01.mp4, but no audio; extract their sound.*ffmpeg"),
        (["x/hello.wav"], "none of its 1 audio files, such as x/hello.wav, has a name like .*is it SAVEE"),
    ],
)
def test_a_folder_without_the_corpus_says_what_is_missing(tmp_path, files, said):
    with pytest.raises(UserError, match=said):
        load_corpus("savee", write_names(tmp_path / "savee", files))
    with pytest.raises(UserError, match="no such folder"):
        load_corpus("savee", tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"--corpus savee needs --data_dir: the folder of SAVEE; get it from http"):
        load_corpus("savee")


# ----------------------------------------------------------------------------------------------- tables and splits


def test_melds_ids_start_again_in_each_part_and_its_split_is_kept(tmp_path):
    reading = read_corpus("meld", trees.meld(tmp_path / "MELD"), check_counts=False)
    corpus = reading.corpus
    assert Counter(corpus["split"]) == {"train": 6, "dev": 6, "test": 5} and len(set(corpus["id"])) == 17
    row = one(corpus, "train_splits/dia1_utt1")
    assert (row["emotion"], row["speaker"], row["dialog"]) == ("angry", "Monica", "train-1")
    assert row["text"] == "“train, 1\x92s 1”" and row["fold"] is None
    parts = split(corpus)
    assert {name: set(part["split"]) for name, part in parts.items()} == {name: {name} for name in parts}
    assert find_leaks(parts)["test_speakers_in_train"] == {"speakers": 2, "utterances": 4}
    assert [line.partition(":")[0] for line in reading.left_out] == [
        "1 audio files have other names than the corpus's", "1 rows have no audio file",
        "1 audio files have no row in a table",
    ]  # fmt: skip


def test_videos_alone_are_told_how_to_become_audio(tmp_path):
    root = trees.meld(tmp_path / "MELD", videos=True)
    for file in root.rglob("*.wav"):
        file.unlink()
    with pytest.raises(UserError, match=r"17 videos such as .*dia0_utt0.mp4, but no audio.*ffmpeg"):
        load_corpus("meld", root)


def test_esds_parts_are_its_split_and_without_them_speakers_are_dealt(tmp_path):
    official = load_corpus("esd", trees.esd(tmp_path / "official"), check_counts=False)
    assert Counter(official["split"]) == {"train": 15, "dev": 15, "test": 15}
    dealt = load_corpus("esd", trees.esd(tmp_path / "kaggle", parts=False), check_counts=False)
    assert set(dealt["split"]) == {None} and len(set(dealt["fold"])) == 3
    for corpus in (official, dealt):
        texts = {row["speaker"]: row["text"] for row in corpus.to_list() if row["id"].endswith("352")}
        assert texts == {"0001": "你好 352.", "0011": "It’s 352.", "0013": "They 352."}
        assert {row["emotion"] for row in corpus.to_list() if row["id"].endswith("352")} == {"angry"}


def test_podcasts_letters_split_and_values(tmp_path):
    reading = read_corpus("msp-podcast", trees.msp_podcast(tmp_path / "podcast"))
    rows = {row["id"]: row for row in reading.corpus.to_list()}
    assert {name[12:]: (row["emotion"], row["split"]) for name, row in rows.items()} == {
        "0001_0001": ("angry", "train"), "0001_0002_0001": ("happy", "train"),
        "0002_0001": ("neutral", "dev"), "0003_0001": ("surprised", "test"),
    }  # fmt: skip
    first = rows["MSP-PODCAST_0001_0001"]
    assert (first["speaker"], first["gender"], first["text"]) == (None, None, "I can't believe it.")
    assert (round(first["activation"], 1), round(first["valence"], 1)) == (5.2, 2.1)
    assert sorted(line.partition(":")[0] for line in reading.left_out) == [
        "1 utterances have emotion 'O'", "1 utterances have emotion 'X'", "1 utterances have split 'Test2'",
    ]  # fmt: skip


def test_emobox_folds_are_its_test_files_and_a_single_one_is_a_split(tmp_path):
    four = load_corpus("emobox", trees.emobox(tmp_path / "four", 4))
    assert [row["fold"] for row in four.sort("path").to_list() if "/0/" in row["path"]] == [1, 4, 3, 2]
    six = load_corpus("emobox", trees.emobox(tmp_path / "six", 6))
    assert Counter(six["fold"]) == {1: 2, 2: 2, 3: 2, 4: 2, 5: 4}
    one_fold = load_corpus("emobox", trees.emobox(tmp_path / "one", 1, valid=True))
    assert Counter(one_fold["split"]) == {"train": 6, "dev": 3, "test": 3}


# ----------------------------------------------------------------------------------------------- one's own page


OWN = """
title = "My calls"
audio = "{emotion}/{speaker:a}_{number:d}"

[maps.emotion]
exc = "happy"
xxx = ""
"""


def own(tmp_path: Path, page: str, names: list[str]) -> tuple[str, Path]:
    (tmp_path / "calls.toml").write_text(page)
    return str(tmp_path / "calls.toml"), write_names(tmp_path / "calls", names)


def test_a_page_of_ones_own_gives_columns_and_maps_some_labels(tmp_path):
    page, root = own(
        tmp_path, OWN, ["angry/anna_3.wav", "exc/anna_3.flac", "exc/Ben_1.wav", "xxx/ben_2.wav", "sad/cleo_1.ogg"]
    )
    reading = read_corpus(page, root)
    rows = [(row["id"], row["emotion"], row["speaker"], row["corpus"]) for row in reading.corpus.to_list()]
    assert rows == [
        ("angry/anna_3", "angry", "anna", "calls"), ("exc/Ben_1", "happy", "Ben", "calls"),
        ("exc/anna_3", "happy", "anna", "calls"), ("sad/cleo_1", "sad", "cleo", "calls"),
    ]  # fmt: skip
    assert reading.left_out == ["1 utterances have emotion 'xxx': xxx/ben_2.wav"]


def test_a_table_of_ones_own_names_its_columns(tmp_path):
    page = '[[tables]]\nfiles = "labels.json"\naudio = "{clip}"\n[columns]\nspeaker = "{who}"\nemotion = "{felt}"\n'
    page, root = own(tmp_path, page, ["a/1.wav", "a/2.wav", "b/1.wav"])
    (root / "labels.json").write_text(
        '[{"clip": "a/1.mp4", "who": 7, "felt": "sad"}, {"clip": "b\\\\1", "who": 8, "felt": "angry"}]'
    )
    reading = read_corpus(page, root)
    assert [(row["id"], row["speaker"], row["emotion"]) for row in reading.corpus.to_list()] == [
        ("a/1", "7", "sad"), ("b/1", "8", "angry"),
    ]  # fmt: skip
    assert reading.left_out == ["1 audio files have no row in a table: a/2.wav"]


def test_two_files_of_one_id_and_different_labels_are_no_copies(tmp_path):
    page, root = own(
        tmp_path, OWN.replace("[maps", 'id = "{speaker}-{number}"\n[maps', 1), ["angry/anna_3.wav", "sad/anna_3.wav"]
    )
    with pytest.raises(UserError, match=r"angry/anna_3.wav and sad/anna_3.wav have the same id anna-3, but different"):
        load_corpus(page, root)


@pytest.mark.parametrize(
    ("page", "said"),
    [
        ("audio = ", "is not valid TOML"),
        ('adio = "x"', "adio is unknown; known: address, audio"),
        ('[columns]\nmood = "{x}"', "columns.mood is unknown; known: activation, dialog"),
        ('[[tables]]\nfile = "x"', "tables.file is unknown"),
        ('[[tables]]\nfiles = "x"', "another form"),
        ('audio = "{emotion!}"', r"pattern '\{emotion!\}': \{emotion!\} is not a part"),
        ('[[tables]]\nfiles = "x"\naudio = "{a}"\nline = "("', "is not a valid regular expression"),
        ("maps = 3", "another form"),
        ('audio = "{speaker}"\n[maps.emotion]\na = 3', "another form"),
    ],
)
def test_a_mistake_in_a_page_is_one_line(tmp_path, page, said):
    name, root = own(tmp_path, page, ["x.wav"])
    with pytest.raises(UserError, match=said) as error:
        load_corpus(name, root)
    assert "calls.toml" in str(error.value)


def test_a_page_that_is_not_there_and_a_misspelt_name_are_named(tmp_path):
    with pytest.raises(UserError, match=r"nowhere.toml: cannot be read"):
        load_corpus("nowhere.toml", tmp_path)
    with pytest.raises(UserError, match=r"--corpus 'emodb': must be one of iemocap.*\(did you mean emo-db\?\)"):
        load_corpus("emodb", tmp_path)


def test_a_link_to_a_folder_above_ends_nowhere(tmp_path):
    root = write_names(tmp_path / "savee", trees.savee())
    (root / "AudioData" / "DC" / "again").symlink_to(root)
    assert len(load_corpus("savee", root)) == 480


def test_every_page_says_what_people_need_to_know():
    assert set(DESCRIBED) == set(WHOLE) | {"esd", "meld", "msp-podcast", "emobox", "hub"}
    for name in DESCRIBED:
        page = read_description(name)
        assert page.title and page.odd and (name == "hub" or (page.address and page.licence and page.language))
