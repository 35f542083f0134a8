"""`ser-mtl corpus` on described corpora: what is read, left out, likely wrong, and the command that trains on it."""

import shlex

import pytest
from helpers import described_trees as trees
from helpers.described_trees import write_names
from helpers.tiny import check_one_line, run_script

from ser_mtl.corpora.folder import read_folder
from ser_mtl.corpora.loading import load_corpus
from ser_mtl.recipe import parse_settings
from ser_mtl.training.stage import Stage1


def shown(*words: object) -> tuple[str, list[str]]:
    """What the command prints, and the words of the training that it ends with."""
    ended = run_script("corpus", words)
    assert ended.code == 0, ended.stderr
    (line,) = [line for line in ended.stdout.splitlines() if line.startswith("accelerate launch run_stage1.py ")]
    return ended.stdout, shlex.split(line)[3:]


def test_a_described_corpus_is_shown_with_the_command_that_trains_on_it(tmp_path):
    names = [*trees.savee(), "AudioData/DC/readme.wav"]
    text, words = shown(write_names(tmp_path / "savee", names), "--corpus", "savee")
    assert "SAVEE\nlanguage: English\nlicence: research only" in text and "from: http://kahlan" in text
    assert "utterances: 480" in text and "0 to 0.1 s" in text and "KL" in text
    assert "1 audio files have other names than the corpus's: AudioData/DC/readme.wav" in text
    assert "gender: all utterances have the same label, 'male'" in text and "text: missing in all rows" in text
    settings = parse_settings(Stage1, words)
    assert (settings.corpus.corpus, settings.corpus.fold) == ("savee", 1)
    assert settings.corpus.data_dir == [str(tmp_path / "savee")]


@pytest.mark.parametrize(
    ("tree", "words", "flags"),
    [
        (lambda root: write_names(root, trees.tess()), ["--corpus", "tess"], ["--dev", "none", "--selection", "last"]),
        (trees.meld, ["--corpus", "meld", "--no_check_counts"], ["--no_check_counts"]),
    ],
)
def test_two_speakers_and_an_official_split_get_the_flags_that_they_need(tmp_path, tree, words, flags):
    text, command = shown(tree(tmp_path / "corpus"), *words)
    assert command[-len(flags) :] == flags and ("--fold" in command) == ("tess" in words)
    settings = parse_settings(Stage1, command)
    assert settings.corpus.dev == ("none" if "tess" in words else "dialog")
    if "meld" in words:
        assert "Official split" in text and "4 test utterances are by 2 speakers of train" in " ".join(text.split())


def test_labels_that_may_mean_the_same_are_named_with_the_map_that_joins_them(tmp_path):
    page = tmp_path / "calls.toml"
    page.write_text('audio = "{emotion}/{speaker}"')
    root = write_names(tmp_path / "calls", ["sad/a.wav", "sadness/b.wav", "happy/c.wav", "angry/d.wav", "sad ly/e.wav"])
    text, _ = shown(root, "--corpus", page)
    assert "'sad' and 'sadness' may mean the same; --map sad=sadness" in " ".join(text.split())
    assert "--map 'sad=sad ly'" in " ".join(text.split())  # one word of a shell
    (root / "sad ly/e.wav").unlink()
    text, words = shown(root, "--corpus", page, "--map", "sad=sadness", "angry=")
    assert "may mean" not in text and "1 utterances are 'angry' (--map)" in text
    assert words[words.index("--map") + 1 :][:2] == ["sad=sadness", "angry="]


def test_spellings_of_one_label_are_named_with_the_map_that_lets_it_train(tmp_path):
    page = tmp_path / "calls.toml"
    page.write_text('audio = "{emotion}/{speaker}"')
    names = ["Happy/a.wav", "Happy/b.wav", "happy/c.wav", "HAPPY/d.wav", "hap py/e.wav", "sad/f.wav"]
    root = write_names(tmp_path / "calls", names)
    ended = run_script("corpus", [root, "--corpus", page])
    advice = " ".join(ended.stdout.partition("Train on it")[2].split())
    assert ended.code == 0 and "Not as it is: column 'emotion': " in advice
    assert "may mean the same" not in ended.stdout
    flags = shlex.split(advice.partition("--map ")[2])
    text, _ = shown(root, "--corpus", page, "--map", *flags)
    assert "are spellings of" not in text


def test_what_is_written_is_read_back_as_a_folder(tmp_path, monkeypatch):
    root = write_names(tmp_path / "tree", trees.savee())
    monkeypatch.chdir(write_names(tmp_path / "elsewhere", []))
    text = shown(root, "--corpus", "savee", "--write", "metadata.csv")[0]
    assert text.endswith(f"written to {root / 'metadata.csv'}\n")
    columns = ("emotion", "gender", "speaker", "fold", "text", "path")
    described, folder = load_corpus("savee", root), read_folder([root])
    rows = [
        sorted(zip(*(corpus[column] for column in columns), strict=True), key=str) for corpus in (described, folder)
    ]
    assert rows[0] == rows[1]


def test_a_folder_that_cannot_be_written_to_is_one_line(tmp_path):
    root = write_names(tmp_path / "tree", trees.savee())
    (tmp_path / "file").write_text("")
    check_one_line(
        run_script("corpus", [root, "--corpus", "savee", "--write", "/proc/metadata.csv"]), "corpus", "/proc"
    )


def test_audio_that_the_table_does_not_name_is_left_out_and_counted(tmp_path):
    root = write_names(tmp_path / "mine", ["a.wav", "b.wav", "more/c.flac"])
    (root / "metadata.csv").write_text("file_name,speaker,emotion\n./a.wav,x,sad\nb.wav,y,angry\n")
    assert "1 audio files are not in metadata.csv: more/c.flac" in shown(root)[0]
