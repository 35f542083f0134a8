"""The program that stands for Python in tests does what Python does; the oracle is Python."""

import os
import subprocess
import sys
import time

import pytest

SHOW = """
import atexit, os, sys, threading, time
import beside
print(__name__, sys.argv, sys.path[:2], os.getcwd(), os.environ["COLOUR"], beside.name, sys.stdin.read())
atexit.register(print, "at exit")
threading.Thread(target=lambda: (time.sleep(0.1), print("a thread"))).start()
"""
CASES = [
    ["-c", SHOW, "a", "-b"],
    ["-m", "shown", "a"],
    ["folder/shown.py", "a"],
    ["-u", "-c", SHOW],
    ["-c", "import sys; sys.exit('why')"],
    ["-c", "import sys; sys.exit(3)"],
    ["-c", "1 / 0"],
    ["-c", "import os; os.kill(os.getpid(), 9)"],
    ["-m", "no_such_module"],
    ["-c", "import sys; print(not any(name.endswith('ser_mtl') for name in sys.modules))"],
]


@pytest.mark.parametrize("words", CASES, ids=lambda words: words[-1].strip()[:40])
def test_a_preloaded_process_ends_and_prints_as_python_does(python, tmp_path, words):
    for name in ("folder", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "beside.py").write_text(f"name = {name!r}")
    (tmp_path / "other/shown.py").write_text(SHOW)
    (tmp_path / "folder/shown.py").write_text(SHOW)
    variables = os.environ | {"COLOUR": "red", "PYTHONPATH": str(tmp_path / "other")}
    ended, expected = (
        subprocess.run([program, *words], cwd=tmp_path, env=variables, input="in", capture_output=True, text=True)
        for program in (python, sys.executable)
    )
    assert (ended.returncode, ended.stdout) == (expected.returncode, expected.stdout)
    last = [
        one.stderr.rpartition("\n")[0].rpartition("\n")[2].replace(python, sys.executable) for one in (ended, expected)
    ]
    assert last[0] == last[1]


@pytest.mark.skipif(sys.platform != "linux", reason="there it is Python itself")
@pytest.mark.parametrize(
    ("more", "forked"), [({}, True), ({"HF_TOKEN": "other"}, True), ({"HF_HUB_OFFLINE": "1"}, False)]
)
def test_settings_that_are_read_at_import_make_a_new_process(python, more, forked):
    code = "import sys; print('torch' in sys.modules)"
    assert subprocess.check_output([python, "-c", code], env=os.environ | more, text=True) == f"{forked}\n"


@pytest.mark.skipif(sys.platform != "linux", reason="there it is Python itself")
def test_what_nobody_waits_for_any_more_ends(python):
    code = "import time; print('begun', flush=True); time.sleep(120)"
    with subprocess.Popen([python, "-c", code], stdout=subprocess.PIPE, text=True) as waiting:
        assert waiting.stdout.readline() == "begun\n"
        begun = time.monotonic()
        waiting.kill()
        assert waiting.stdout.read() == ""  # closed by the program too
    assert time.monotonic() - begun < 60
