"""Pins a folder with metadata.csv as a corpus: reading, joining, writing, and the line each mistake gives."""

import csv
from collections import defaultdict
from pathlib import Path

import pytest
from helpers.iemocap_tree import write_tree

from ser_mtl.corpora.folder import read_folder, write_metadata
from ser_mtl.corpora.folds import split
from ser_mtl.corpora.iemocap import read_iemocap
from ser_mtl.corpora.utterances import FEATURES
from ser_mtl.errors import Notice, UserError


def write_folder(folder: Path, metadata: str | bytes, audio: str = "a.wav b.wav c.wav") -> Path:
    folder.mkdir(parents=True)
    for name in audio.split():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    (folder / "metadata.csv").write_bytes(metadata.encode() if isinstance(metadata, str) else metadata)
    return folder


def test_other_columns_are_named_once_and_not_read(tmp_path):
    metadata = 'file_name,speaker,speaker_id,age,"mo\nod"\na.wav,x,1,30,sad\nb.wav,y,2,40,sad\n'
    with pytest.warns(Notice) as said:
        corpus = read_folder([write_folder(tmp_path / "mine", metadata)])
    assert len(said) == 1
    assert "metadata.csv: columns that are not read: 'speaker_id', 'age', 'mo\\nod'" in str(said[0].message)
    assert corpus["speaker"][:] == ["x", "y"]


def test_every_column_is_read_and_empty_cells_are_not_annotated(tmp_path):
    metadata = (
        "file_name,emotion,text,gender,style,speaker,dialog,fold\n"
        'b.wav,,,,,,,3\na.wav, angry ,"Żółw, NA, null",female,normal,007,d1,2\n'
    )
    folder = write_folder(tmp_path / "mine", metadata)
    corpus = read_folder([folder])
    nothing = dict.fromkeys(FEATURES)
    assert corpus.features == FEATURES
    assert corpus.to_list() == [
        nothing
        | {"id": "a.wav", "path": str(folder / "a.wav"), "corpus": "mine", "speaker": "007", "dialog": "d1"}
        | {"fold": 2, "emotion": "angry", "gender": "female", "style": "normal", "text": "Żółw, NA, null"},
        nothing | {"id": "b.wav", "path": str(folder / "b.wav"), "corpus": "mine", "fold": 3},
    ]


def test_words_for_nothing_are_empty_but_words_in_transcripts(tmp_path):
    folder = write_folder(
        tmp_path / "mine", "file_name,text,emotion,dialog,fold\na.wav,NA,None,NA,1\nb.wav,null,nan,unknown,2\n"
    )
    with pytest.warns(Notice) as caught:
        corpus = read_folder([folder])
    assert corpus["text"][:] == ["NA", "null"]
    assert corpus["emotion"][:] == corpus["dialog"][:] == [None, None]
    said = [str(one.message) for one in caught]
    assert f"{folder}/metadata.csv: column 'emotion': 'nan', in 1 rows, is read as an empty cell" in said


@pytest.mark.parametrize("nobody", ["unknown", "Unknown", "<unk>", "none", "N/A", "missing", "nan", "?", "-"])
def test_speakers_without_a_name_are_nobody(tmp_path, nobody):
    rows = f"file_name,speaker,fold\na.wav,{nobody},1\nb.wav,{nobody},2\nc.wav,x,2\n"
    assert read_folder([write_folder(tmp_path / "mine", rows)])["speaker"][:] == [None, None, "x"]
    dealt = write_folder(tmp_path / "dealt", f"file_name,speaker\na.wav,x\nb.wav,{nobody}\n")
    with pytest.raises(UserError, match="row 3: neither 'fold' nor 'speaker'"):
        read_folder([dealt])


def test_a_byte_order_mark_and_windows_line_ends_are_accepted(tmp_path):
    folder = write_folder(tmp_path / "mine", b"\xef\xbb\xbffile_name,speaker\r\na.wav,x\r\n")
    assert read_folder([folder])["speaker"][:] == ["x"]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_any_separator_of_a_spreadsheet_is_read(tmp_path, separator):
    rows = ("text", "file_name", "speaker"), ('"well; yes, so\tthere"', "a.wav", "x"), ("no", "b.wav", '"y\nz"')
    folder = write_folder(tmp_path / "mine", "".join(f"{separator.join(row)}\n" for row in rows))
    corpus = read_folder([folder])
    assert corpus["text"][:] == ["well; yes, so\tthere", "no"] and corpus["speaker"][:] == ["x", "y z"]


@pytest.mark.parametrize(
    "metadata",
    [
        ",file_name,speaker\n0,a.wav,x\n1,b.wav,y\n",
        "Unnamed: 0,file_name,speaker\n7,a.wav,x\n3,b.wav,y\n",
        "file_name,speaker,,\na.wav,x,,\nb.wav,y, ,\n",
        "file_name;speaker;\na.wav;x;\nb.wav;y;\n",
    ],
)
def test_columns_without_a_name_that_say_nothing_are_left_out(tmp_path, metadata):
    corpus = read_folder([write_folder(tmp_path / "mine", metadata)])
    assert (corpus["id"][:], corpus["speaker"][:]) == (["a.wav", "b.wav"], ["x", "y"])


def test_paths_of_windows_are_read_and_the_shortest_form_is_the_id(tmp_path):
    metadata = "file_name,speaker\nclips\\deep\\a.wav,x\n.\\b.wav,x\n./clips//c.wav,x\n"
    folder = write_folder(tmp_path / "mine", metadata, audio="clips/c.wav clips/deep/a.wav b.wav")
    corpus = read_folder([folder])
    assert corpus["id"][:] == ["b.wav", "clips/c.wav", "clips/deep/a.wav"]
    assert corpus["path"][:] == [str(folder / name) for name in corpus["id"]]
    odd = write_folder(tmp_path / "odd", "file_name,speaker\na\\b.wav,x\n", audio="a\\b.wav")
    assert read_folder([odd])["id"][:] == ["a\\b.wav"]  # on Linux, a name like another


def test_files_in_sub_folders_are_found(tmp_path):
    folder = write_folder(tmp_path / "mine", "file_name,speaker\nclips/a.wav,x\n", audio="clips/a.wav")
    assert read_folder([folder])["path"][:] == [str(folder / "clips" / "a.wav")]


def test_joined_folders_share_their_people_but_no_ids_and_dialogs(tmp_path):
    one = write_folder(tmp_path / "one", "file_name,speaker,dialog\na.wav,x,d\nb.wav,x,d\n")
    two = write_folder(tmp_path / "two", "file_name,speaker,dialog\na.wav,X ,d\nb.wav,unknown 2,\n")
    with pytest.warns(Notice) as caught:
        corpus = read_folder([two, one])
    assert corpus["id"][:] == ["one/a.wav", "one/b.wav", "two/a.wav", "two/b.wav"]
    assert corpus["speaker"][:] == ["x", "x", "x", "unknown 2"]
    assert corpus["dialog"][:] == ["one/d", "one/d", "two/d", None]
    assert corpus["corpus"][:] == ["one", "one", "two", "two"]
    said = " ".join(str(one.message) for one in caught)
    assert "1 speakers are in several folders (such as 'x')" in said and "--distinct_speakers" in said


def test_two_spellings_of_a_speaker_stop_unless_the_split_is_official(tmp_path, recwarn):
    rows = "file_name,speaker,fold\na.wav,f1,1\nb.wav,f01,2\nc.wav,f1,1\n"
    one = write_folder(tmp_path / "one", rows)
    two = write_folder(tmp_path / "two", "file_name,speaker,fold\na.wav,f1,1\nb.wav,f1.0,2\n")
    said = r"metadata.csv: column 'speaker': 'f01', 'f1' are most likely one person; did you mean 'f1'\?"
    for folders, distinct in [([one], False), ([one, two], False), ([one, two], True)]:
        with pytest.raises(UserError, match=said):
            read_folder(folders, distinct_speakers=distinct)
    assert "'f1', 'f1.0'" in " ".join(str(warning.message) for warning in recwarn)
    official = rows.replace("fold", "split").replace(",1", ",train").replace(",2", ",test")
    with pytest.warns(Notice, match="are most likely one person"):
        read_folder([write_folder(tmp_path / "official", official)])


def test_two_spellings_of_a_dialog_are_one(tmp_path):
    rows = "file_name,speaker,dialog\na.wav,x,Talk 1\nb.wav,y,talk1\nc.wav,z,talk1\n"
    with pytest.warns(
        Notice, match=r"1 dialogs have several spellings \(such as 'Talk 1', 'talk1'\): each is one dialog"
    ):
        corpus = read_folder([write_folder(tmp_path / "mine", rows)])
    assert corpus["dialog"][:] == ["talk1"] * 3


def test_speakers_that_can_be_no_people_are_said(tmp_path):
    names = [f"{number}.wav" for number in range(10)]
    of_two = "".join(
        f"{name},x{n % 5},{'male' if n < 5 else 'M' if n == 5 else 'male'}\n" for n, name in enumerate(names)
    )
    with pytest.warns(Notice, match="1 speakers have more than one, such as 'x0' with 'M' and 'male'"):
        read_folder([write_folder(tmp_path / "two", "file_name,speaker,gender\n" + of_two, " ".join(names))])
    each = "".join(f"{name},{name}\n" for name in names)
    with pytest.warns(Notice, match="each utterance has one of its own, so the same person may be in train and test"):
        read_folder([write_folder(tmp_path / "each", "file_name,speaker\n" + each, " ".join(names))])


def test_distinct_speakers_have_the_name_of_their_folder(tmp_path):
    one = write_folder(tmp_path / "one", "file_name,speaker\na.wav,x\nb.wav,X\nc.wav,x\n")
    two = write_folder(tmp_path / "two", "file_name,speaker\na.wav,x\nb.wav,y\n")
    assert read_folder([one, two], distinct_speakers=True)["speaker"][:] == ["one/x"] * 3 + ["two/x", "two/y"]
    assert read_folder([one], distinct_speakers=True)["speaker"][:] == ["x"] * 3


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0)])
def test_a_person_is_in_one_fold_of_all_folders(tmp_path, order):
    """A column `fold` decides; without one, the first folder that is named."""
    names = [f"{n}.wav" for n in range(12)]
    tables = {
        "speech": "file_name,speaker\n" + "".join(f"{name},actor{n % 6}\n" for n, name in enumerate(names)),
        "song": "file_name,speaker\n" + "".join(f"{name},ACTOR{n % 8}\n" for n, name in enumerate(names)),
        "given": "file_name,speaker,fold\n0.wav,actor3,5\n1.wav,actor7,4\n",
    }
    folders = [write_folder(tmp_path / name, table, " ".join(names)) for name, table in tables.items()]
    corpus = read_folder([folders[i] for i in order])
    folds = defaultdict(set)
    for speaker, fold in zip(corpus["speaker"], corpus["fold"], strict=True):
        folds[speaker.lower()].add(fold)
    assert all(len(found) == 1 for found in folds.values()) and len(folds) == 8
    assert (folds["actor3"], folds["actor7"]) == ({5}, {4})
    split(corpus, 1, "none")


def test_a_folder_has_the_same_folds_alone_and_joined(tmp_path):
    names = " ".join(f"{speaker}{i}.wav" for speaker in "abcdefghijk" for i in range(ord(speaker) % 4 + 1))
    rows = [f"{name},{name[0]},{'female' if name[0] < 'f' else 'male'}\n" for name in names.split()]
    one = write_folder(tmp_path / "one", "file_name,speaker,gender\n" + "".join(rows), names)
    two = write_folder(tmp_path / "two", "file_name,speaker,gender\n" + "".join(rows[5:]), names)
    shuffled = write_folder(tmp_path / "three", "file_name,speaker,gender\n" + "".join(rows[::-1]), names)
    alone = _folds(read_folder([one]))
    assert set(alone.values()) == {1, 2, 3, 4, 5}
    assert _folds(read_folder([shuffled])) == alone
    joined = _folds(read_folder([one, two]))
    assert {name: fold for name, fold in joined.items() if name.startswith("one/")} == {
        f"one/{name}": fold for name, fold in alone.items()
    }


def _folds(corpus) -> dict[str, int]:
    return dict(zip(corpus["id"], corpus["fold"], strict=True))


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        ("file_name,speaker\na.wav,x\nd.wav,x\ne.wav,y\n", r"row 3: no audio file d\.wav \(2 missing in all\)"),
        ("file_name,speaker\na.wav,x\nb.wav,x\na.wav,y\n", r"row 4: file_name 'a\.wav' is already in row 2"),
        ("file_name,speaker\n,x\n", r"row 2: column 'file_name' is empty"),
        ("file_name,speaker\n../mine/a.wav,x\n", r"row 2: file_name '../mine/a\.wav' is outside the folder"),
        ("file_name,speaker\n/etc/hosts,x\n", r"row 2: file_name '/etc/hosts' is outside the folder"),
        ("emotion,speaker\nsad,x\n", r"no column 'file_name'"),
        ("filename,speaker\na.wav,x\n", r"unknown columns: 'filename' \(did you mean 'file_name'\?\)"),
        ("file_name,Speaker,emotoin\na.wav,x,1\n", r"'Speaker' \(did you mean 'speaker'\?\), 'emotoin' \(did you mean"),
        ("file_name;speaker;styl\na.wav;x;a\n", r"unknown columns: 'styl' \(did you mean 'style'\?\); rename"),
        ("file_name,speaker,style\na.wav,x,all\n", r"'style': 'all' means all utterances in results; rename the style"),
        ("file_name,speaker,speaker\na.wav,x,y\n", r"column 'speaker' appears twice"),
        ("file_name,speaker,\na.wav,x,sad\n", r"column 3 has no name; name it in the first row, or remove it"),
        (",file_name,speaker\nsad,a.wav,x\n", r"column 1 has no name"),
        ("Unnamed: 0,file_name,speaker\n1,a.wav,x\n1,b.wav,y\n", r"column 1 has no name"),
        ("file_name;text\na.wav;well; yes\n", r"more cells than the header; put quotes around text with semicolons"),
        ("file_name,speaker\n" + "n" * 300 + ".wav,x\n", r"row 2: no audio file n{300}\.wav"),
        ('file_name,speaker\n"a\n\x1b[31m.wav",x\n', r"row 2: no audio file a\\n\\x1b\[31m\.wav"),
        ("file_name,speaker\na\x00.wav,x\n", r"row 2: no audio file a\\x00\.wav"),
        ("file_name,speaker\nC:\\mine\\a.wav,x\n", r"row 2: file_name .* is outside the folder"),
        ("file_name,speaker\n..\\a.wav,x\n", r"row 2: file_name .* is outside the folder"),
        ("file_name,speaker\na.wav,x\n.\\a.wav,y\n", r"row 3: file_name .* is already in row 2"),
        ("file_name,fold\na.wav,1\nb.wav,6\n", r"row 3: fold '6'"),
        ("file_name,fold\na.wav,0\n", r"row 2: fold '0'"),
        ("file_name,fold\na.wav,1.5\n", r"row 2: fold '1\.5'"),
        ("file_name,fold\na.wav,one\n", r"row 2: fold 'one'"),
        ("file_name,speaker,fold\na.wav,x,1\nb.wav,y,\n", r"row 3: no 'fold', but other rows have one"),
        ("file_name,emotion\na.wav,sad\n", r"row 2: neither 'fold' nor 'speaker'; .* must not be in training"),
        ("file_name,speaker\na.wav,x\nb.wav,\n", r"row 3: neither 'fold' nor 'speaker'"),
        ("file_name,speaker\n", r"holds no rows"),
        ("", r"not a table"),
        (
            'file_name,text,speaker\na.wav,"well,x\nb.wav,no,y\nc.wav,"oh,z\n',
            r"csv, lines 2 to 4: quotes do not match .*close a quote where its cell ends",
        ),
        ('file_name,text,speaker\na.wav,"he said \\"no\\"",x\n', r"csv, line 2: quotes do not match"),
        ('file_name,speaker\na.wav,x\nb.wav,"y\nc.wav,z\n', r"csv, lines 3 to 4: quotes do not match"),
        (f"file_name,{','.join(f'c{n}' for n in range(10_000))}\n", r"has 10001 columns, more than 10000; keep those"),
        ("file_name,speaker\na.wav,x\nb.wav,y,one,too,many\n", r"not a table .*line 3"),
        ("file_name,text\na.wav,well, yes\n", r"more cells than the header"),
        ("file_name,speaker\na.wav,caf\xe9\n".encode("latin-1"), r"not UTF-8"),
    ],
)
def test_a_mistake_in_the_table_gives_one_line_with_its_place(tmp_path, metadata, said):
    folder = write_folder(tmp_path / "mine", metadata)
    with pytest.raises(UserError, match=said) as stop:
        read_folder([folder])
    assert str(folder / "metadata.csv") in str(stop.value)
    assert "\n" not in str(stop.value)


def test_a_missing_folder_or_table_is_named(tmp_path):
    with pytest.raises(UserError, match=f"no such folder: {tmp_path / 'nowhere'}"):
        read_folder([tmp_path / "nowhere"])
    with pytest.raises(UserError, match=rf"no metadata\.csv in {tmp_path}"):
        read_folder([tmp_path])


def test_two_folders_of_the_same_name_are_refused(tmp_path):
    folders = [write_folder(tmp_path / part / "same", "file_name,speaker\na.wav,x\n") for part in ("p", "q")]
    with pytest.raises(UserError, match="two folders are called 'same'"):
        read_folder(folders)


# ------------------------------------------------------------------------------------------------------------- writing


def test_a_written_corpus_is_read_back_with_the_same_annotations(tmp_path):
    write_tree(tmp_path)
    corpus = read_iemocap(tmp_path, check_counts=False)
    write_metadata(corpus, tmp_path / "metadata.csv")
    written = read_folder([tmp_path])
    columns = ["emotion", "gender", "style", "text", "speaker", "dialog", "fold"]
    by_path = {row.pop("path"): row for row in written.select_columns(["path", *columns])}
    assert by_path == {row.pop("path"): row for row in corpus.select_columns(["path", *columns])}
    assert written["id"][0] == "Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_F000.wav"


def test_a_spreadsheet_computes_nothing_of_a_written_corpus(tmp_path):
    names = ["=a.wav", "-b.wav", "@c.wav", "+d.wav"]
    text = "file_name,speaker,text,emotion\n" + "".join(f'{name},=1+1,"@x\n=y","\'-z\r"\n' for name in names)
    folder = write_folder(tmp_path / "mine", text, audio=" ".join(names))
    corpus = read_folder([folder])
    assert sorted(corpus["id"]) == sorted(names) and set(corpus["emotion"]) == {"-z"}
    (folder / "metadata.csv").unlink()
    write_metadata(corpus, folder / "metadata.csv")
    with open(folder / "metadata.csv", newline="") as file:
        cells = [cell for row in csv.reader(file) for cell in row]
    assert len(cells) == 8 * 5 and not [cell for cell in cells if cell[:1] in tuple("=+-@")]
    assert read_folder([folder]).to_list() == corpus.to_list()


def test_joined_folders_are_written_with_their_folds(tmp_path):
    one = write_folder(tmp_path / "one", 'file_name,speaker,text\na.wav,x,"well, ""NA"" "\nb.wav,y,\n')
    two = write_folder(tmp_path / "two", "file_name,speaker,dialog\na.wav,x,d\n")
    corpus = read_folder([one, two])
    write_metadata(corpus, tmp_path / "metadata.csv")
    written = read_folder([tmp_path])
    assert written.remove_columns("corpus").to_list() == corpus.remove_columns("corpus").to_list()


def test_audio_may_be_linked_into_the_folder(tmp_path):
    folder = write_folder(tmp_path / "elsewhere", "file_name,speaker\na.wav,x\n")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/linked").symlink_to(folder)
    write_metadata(read_folder([tmp_path / "mine/linked"]), tmp_path / "mine/metadata.csv")
    assert read_folder([tmp_path / "mine"])["id"][:] == ["linked/a.wav"]


def test_a_table_away_from_the_audio_is_refused(tmp_path):
    folder = write_folder(tmp_path / "mine", "file_name,speaker\nclips/a.wav,x\nb.wav,y\n", "clips/a.wav b.wav")
    corpus = read_folder([folder])
    with pytest.raises(UserError, match=rf"b\.wav is outside .* holds the audio: {folder}/metadata\.csv$"):
        write_metadata(corpus, tmp_path / "other/metadata.csv")
    assert not (tmp_path / "other").exists()


def test_an_existing_table_is_not_overwritten(tmp_path):
    folder = write_folder(tmp_path / "mine", "file_name,speaker\na.wav,x\n")
    with pytest.raises(UserError, match=r"metadata\.csv: exists"):
        write_metadata(read_folder([folder]), folder / "metadata.csv")
    assert (folder / "metadata.csv").read_text() == "file_name,speaker\na.wav,x\n"
