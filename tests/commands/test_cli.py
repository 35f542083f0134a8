"""The command `ser-mtl`: quick to explain itself, one line for a mistake, one file per command."""

import os
import subprocess
import sys
import time

import pandas as pd
import pytest
from helpers.iemocap_tree import write_tree
from helpers.tiny import ROOT, check_one_line, run_script

from ser_mtl import cli

HEAVY = ("torch", "transformers", "datasets", "pandas", "matplotlib", "soundfile", "peft", "sklearn", "numpy")


def command(*words: str, code: str | None = None, python: str = sys.executable) -> subprocess.CompletedProcess:
    program = ["-c", code] if code else ["-m", "ser_mtl"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run([python, *program, *words], capture_output=True, text=True, env=environment)


@pytest.mark.parametrize("words", [[], ["--help"], *([verb, "--help"] for verb in cli.VERBS)], ids=str)
def test_help_imports_no_heavy_library(words):
    code = "import sys; from ser_mtl.cli import main\ntry: main()\nfinally: print([m for m in sys.argv[1:] if 0] or"
    code += f" [m for m in {HEAVY!r} if m in sys.modules], file=sys.stderr)"
    ended = command(*words, code=code)
    assert ended.returncode == 0 and "usage: ser-mtl" in ended.stdout
    assert ended.stderr.strip() == "[]"


def test_help_and_mistakes_answer_in_half_a_second():
    """The best of five: other programs share the cores."""
    for words in (["--help"], ["predict", "--modle", "x"], ["pedict"]):
        seconds = []
        for _ in range(5):
            begun = time.perf_counter()
            command(*words)
            seconds.append(time.perf_counter() - begun)
        assert min(seconds) < 0.5, words


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["pedict", "a.wav"],
            "ser-mtl: unknown command 'pedict' (did you mean predict?); commands: annotate",
        ),
        (["predict", "--modle", "x"], "ser-mtl predict: unrecognized arguments: --modle (did you mean --model?)"),
        (["predict"], "ser-mtl predict: the following arguments are required: paths"),
        (["predict", "a.wav", "--format", "xml"], "ser-mtl predict: argument --format: invalid choice: 'xml'"),
        (["export", "somewhere", "--to", "onnxx"], "ser-mtl export: argument --to: invalid choice"),
        (["export", "nowhere", "--to", "merged"], "ser-mtl export: nowhere: "),
        (["corpus"], "ser-mtl corpus: name the folder of the corpus"),
        (["corpus", "nowhere"], "ser-mtl corpus: no such folder: nowhere"),
    ],
    ids=str,
)
def test_a_mistake_is_one_line_and_exit_code_2(python, words, said):
    ended = command(*words, python=python)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith(said)
    assert ended.stderr.count("\n") == 1


def test_an_interruption_is_one_line_and_exit_code_130():
    code = "from ser_mtl.cli import command_line\ndef main(): raise KeyboardInterrupt\ncommand_line(main, 'ser-mtl x')"
    ended = command(code=code)
    assert (ended.returncode, ended.stderr) == (130, "ser-mtl x: stopped\n")


def test_a_reader_that_stops_is_no_error():
    code = "from ser_mtl.cli import command_line\ndef main():\n    while True: print('line')\ncommand_line(main)"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    program = [sys.executable, "-c", code]
    with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as process:
        assert process.stdout.readline() == b"line\n"
        process.stdout.close()
        assert (process.stderr.read(), process.wait(timeout=60)) == (b"", 1)


def test_every_file_of_a_command_is_a_verb_with_a_line_of_help():
    files = {path.stem for path in (ROOT / "ser_mtl/commands").glob("*.py")} - {"__init__"}
    assert files == set(cli.VERBS) == {"predict", "publish", "export", "corpus", "evaluate", "annotate", "page"}
    for verb in files:
        assert f"  {verb}" in cli.overview() and len(cli.first_line(verb)) > 20


def test_importing_the_package_imports_no_library():
    ended = command(code=f"import sys, ser_mtl; print([m for m in {HEAVY!r} if m in sys.modules], len(dir(ser_mtl)))")
    assert ended.stdout.startswith("[] "), ended.stderr


def test_the_public_names_are_there(python):
    code = "import ser_mtl; print([name for name in ser_mtl.__all__ if getattr(ser_mtl, name).__name__ != name])"
    assert command(code=code, python=python).stdout.strip() == "[]"


# ------------------------------------------------------------------------------------------------------------- corpus


def test_a_corpus_is_shown_and_its_split(good_corpus):
    ended = run_script("corpus", [good_corpus, "--fold", "1", "--dev", "session"])
    assert ended.code == 0, ended.stderr
    for words in ("utterances: 40", "angry", "female", "no shared speaker"):
        assert words in ended.stdout


def test_iemocap_is_written_as_a_folder_corpus(tmp_path):
    root = tmp_path / "IEMOCAP_full_release"
    write_tree(root)
    flags = [root, "--corpus", "iemocap", "--no_check_counts", "--write", root / "metadata.csv"]
    ended = run_script("corpus", flags)
    assert ended.code == 0, ended.stderr
    again = run_script("corpus", [root])
    assert again.code == 0, again.stderr
    assert sorted(pd.read_csv(root / "metadata.csv")["fold"].unique()) == [1, 2, 3, 4, 5]
    ended = run_script("corpus", flags)
    assert (ended.code, ended.stderr.splitlines()[-1]) == (
        2, f"ser-mtl corpus: {root / 'metadata.csv'}: exists; remove it, or write to another file",
    )  # fmt: skip


# ------------------------------------------------------------------------------------------------------------ predict


def test_answers_go_to_a_file_whole_or_not_at_all(finished, good_corpus, tmp_path):
    recordings = sorted(good_corpus.glob("*.wav"))[:2]
    flags = [*recordings, "--model", finished, "--format", "csv"]
    ended = run_script("predict", [*flags, "--output", tmp_path / "answers.csv"])
    assert (ended.code, ended.stdout) == (0, "")
    table = pd.read_csv(tmp_path / "answers.csv")
    assert table["file"].tolist() == [str(path) for path in recordings]
    assert run_script("predict", flags).stdout == (tmp_path / "answers.csv").read_text()


@pytest.mark.parametrize("form", ["text", "json", "csv"])
def test_a_file_without_an_answer_costs_no_other_its_own(finished, good_corpus, tmp_path, form):
    flags = [next(good_corpus.glob("*.wav")), tmp_path / "gone.wav", "--model", finished, "--format", form]
    printed = run_script("predict", flags)
    written = run_script("predict", [*flags, "--output", tmp_path / "new/answers"])
    assert (printed.code, written.code, written.stdout) == (2, 2, "")
    assert (tmp_path / "new/answers").read_text() == printed.stdout


def test_an_interrupted_predict_leaves_the_old_file(finished, good_corpus, tmp_path, monkeypatch):
    (tmp_path / "answers").write_text("old")

    def interrupt(*batch):
        raise KeyboardInterrupt

    monkeypatch.setattr("answers_ser_mtl._Inference.answer_batch", interrupt)
    recording = next(good_corpus.glob("*.wav"))
    ended = run_script("predict", [recording, "--model", finished, "--output", tmp_path / "answers"])
    assert (ended.code, ended.stderr.splitlines()[-1]) == (130, "ser-mtl predict: stopped")
    assert [path.name for path in tmp_path.iterdir()] == ["answers"]
    assert (tmp_path / "answers").read_text() == "old"


def test_an_output_that_cannot_be_written_is_one_line(finished, good_corpus, tmp_path):
    recording = next(good_corpus.glob("*.wav"))
    for output in (recording / "answers", f"{recording}/"):
        ended = run_script("predict", [recording, "--model", finished, "--output", output])
        check_one_line(ended, "predict", f"--output {output}")
