"""Pins that messages do not mislead: a retry only where it can help, what is missing by name, flags that exist."""

import json
import shutil
from pathlib import Path

import pytest
from helpers.tiny import check_one_line, run_flags, run_script
from huggingface_hub import HfApi
from huggingface_hub.errors import HFValidationError
from safetensors import SafetensorError

from ser_mtl.cli import command_line
from ser_mtl.corpora.mapping import parse_map
from ser_mtl.errors import Notice, UserError, hub_errors, notice
from ser_mtl.hub.push import make_repository
from ser_mtl.model.base import base_of
from ser_mtl.training.run_folder import check_writable


def line(error: Exception) -> str:
    with pytest.raises(UserError) as caught, hub_errors("model x"):
        raise error
    return str(caught.value)


@pytest.mark.parametrize(
    "error", [RuntimeError("size mismatch for weight"), ValueError("odd"), OSError("odd")], ids=str
)
def test_no_retry_is_advised_where_it_cannot_help(error):
    assert line(error) == f"model x: {error}"


@pytest.mark.parametrize(
    "error",
    [ConnectionResetError("reset"), TimeoutError("late"), RuntimeError("Data processing error: CAS service error")],
    ids=str,
)
def test_a_retry_is_advised_for_the_network(error):
    assert line(error) == f"model x: {error}: run this again"


def test_what_libraries_leave_vague_is_said_with_its_reason():
    vague = type("DatasetGenerationError", (Exception,), {})("An error occurred while generating the dataset")
    vague.__cause__ = ValueError("no such column")
    assert line(vague) == "model x: no such column"
    offline = ConnectionError("Couldn't reach 'x' on the Hub (OfflineModeIsEnabled)")
    assert line(offline) == "model x: HF_HUB_OFFLINE forbids the network; unset it"
    path = SafetensorError("Path a/model.safetensors is not valid UTF-8")
    assert line(path) == "model x: its path is not UTF-8; rename its folder"


@pytest.mark.parametrize(
    ("text", "codec", "said"),
    [("a\udcff", "utf-8", r"a\udcff: holds bytes"), ("é", "ascii", "é: cannot be written as")],
)
def test_what_cannot_be_encoded_is_one_line(capsys, text, codec, said):
    with pytest.raises(SystemExit) as ended:
        command_line(lambda: text.encode(codec) and None, "program")
    error = capsys.readouterr().err
    assert ended.value.code == 2 and error.startswith(f"program: {said}") and error.count("\n") == 1


def test_a_folder_or_label_that_files_cannot_hold_is_refused_first(tmp_path):
    with pytest.raises(UserError, match=r"--output_dir .*\\udcff: is not UTF-8"):
        check_writable(tmp_path / "\udcff")
    with pytest.raises(UserError, match=r"--map a=\\udcff: is not UTF-8"):
        parse_map(["a=\udcff"])


@pytest.mark.parametrize("target", ["loop", "nowhere"])
def test_a_link_that_leads_nowhere_is_one_line(tmp_path, good_corpus, encoder, finished, finished2, target):
    link = tmp_path / "loop"
    link.symlink_to(tmp_path / target)
    audio = next(good_corpus.glob("*.wav"))
    for flags in (
        run_flags(good_corpus, link, encoder=encoder),
        run_flags(good_corpus, link / "a/b", encoder=encoder),
        run_flags(link, tmp_path / "out", encoder=encoder),
    ):
        check_one_line(run_script("run_stage1", flags), "run_stage1", link)
    check_one_line(run_script("predict", [audio, "--model", finished2, "--base", link]), "predict", f"--base {link}")
    with pytest.raises(UserError, match="a link to nowhere"):
        check_writable(link)
    if target == "loop":
        ended = run_script("export", [finished, "--to", "wav2vec2", "--output_dir", link])
        check_one_line(ended, "export", link)
        ended = run_script("annotate", ["--data_dir", good_corpus, "--output_dir", link, "--model", finished])
        check_one_line(ended, "annotate", link)
    assert [path.name for path in tmp_path.iterdir()] == ["loop"]


def test_places_that_are_printed_cannot_steer_a_terminal(finished, tmp_path):
    ended = run_script("export", [finished, "--to", "wav2vec2", "--output_dir", tmp_path / "\x1b[31m"])
    assert ended.code == 0 and r"\x1b[31m/emotion" in ended.stdout and "\x1b" not in ended.stdout


def test_what_is_neither_folder_nor_repository_is_said_so():
    said = "model x: there is no such folder, and it is no Hub id (namespace/name)"
    cause = HFValidationError("Repo id must be in the form 'repo_name' or 'namespace/repo_name': '/a/b/c'")
    wrapped = OSError("Incorrect path_or_model_id")
    wrapped.__cause__ = cause
    assert line(cause) == line(wrapped) == said


def test_damaged_weights_and_names_of_no_repository_say_what_to_do():
    damaged = SafetensorError("Error while deserializing header: header too small")
    assert line(damaged) == f"model x: its weights are damaged ({damaged}); copy or download them again"
    with pytest.raises(UserError, match=r"^repository a/b/c: is not a valid name; write namespace/name"):
        make_repository(HfApi(), "a/b/c")


@pytest.fixture
def moved(finished2, tmp_path) -> Path:
    """A run of stage 2 whose stage 1 is gone."""
    run = shutil.copytree(finished2, tmp_path / "elsewhere/stage2")
    file = run / "adapter_config.json"
    adapter = json.loads(file.read_text()) | {"base_model_name_or_path": "/gone/runs/stage1/fold1"}
    file.write_text(json.dumps(adapter))
    return run


def test_a_base_that_has_moved_is_named_with_the_flags_of_the_program(moved, good_corpus, hub):
    recording = next(good_corpus.glob("*.wav"))
    for words, flag in (
        (["predict", recording, "--model", moved], "name it with --base"),
        (["export", moved, "--to", "merged"], "name it with --base"),
        (["publish", moved, "--repo_id", "ada/x"], "ser-mtl publish --base_repo_id"),
        (["publish", moved, "--repo_id", "ada/x", "--merge"], "ser-mtl publish --base_repo_id"),
    ):
        ended = run_script(words[0], words[1:])
        check_one_line(ended, words[0], moved, "/gone/runs/stage1/fold1", flag, "--to merged --base", "--merge")
        assert "Repo id" not in ended.stderr


@pytest.mark.parametrize("name", ["runs/folder/stage1/fold1", "./stage1", "stage1", "/gone/a/b"])
def test_a_base_that_can_only_be_a_folder_is_never_looked_up(tmp_path, name):
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": name}))
    with pytest.raises(UserError, match=f"{tmp_path}: the base of its adapters is not there"):
        base_of(tmp_path)


def test_a_missing_model_keeps_its_flag_and_others_get_none(good_corpus, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    recording = next(good_corpus.glob("*.wav"))
    check_one_line(run_script("predict", [recording, "--model", "nowhere"]), "predict", "--model nowhere: ")
    check_one_line(run_script("predict", [recording]), "predict", "--model: no finished run")


def test_the_command_corpus_names_no_flag_of_training(tmp_path):
    for words in ([tmp_path / "nowhere"], [tmp_path], [tmp_path, "--corpus", "iemocap"], [tmp_path, tmp_path]):
        said = run_script("corpus", words).stderr
        assert said.startswith("ser-mtl corpus: ") and not said.startswith("ser-mtl corpus: --")


def test_a_notice_cannot_steer_a_terminal():
    with pytest.warns(Notice, match=r"a\\x1b\[2Jb\\nc"):
        notice("a\x1b[2Jb\nc")


def test_a_program_says_the_same_notice_once(capsys):
    def main():
        for line in ("odd", "odder", "odd"):
            notice(line)

    command_line(main, "a")
    command_line(main, "b")
    assert capsys.readouterr().err.splitlines() == ["a: odd", "a: odder", "b: odd", "b: odder"]
