"""Programs in processes of their own without the seconds of their imports: forks of one that has the libraries.

`python` writes a program that takes the place of `sys.executable`: `-c`, `-m` and scripts run in the folder, with the
command line, the environment, the module path and the standard streams of a new process. They run in a fork of a server
that has imported torch, transformers and the others, and nothing of this project. What a fork cannot do like a new
process, such as with another setting that libraries read as they are imported, a new process does.
"""

import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LIBRARIES = (
    "torch", "torchaudio", "transformers.pipelines", "transformers.models.wav2vec2.modeling_wav2vec2",
    "transformers.models.whisper.modeling_whisper", "transformers.trainer", "peft", "accelerate.commands.launch",
    "datasets", "pandas", "scipy.stats", "sklearn.decomposition", "sklearn.metrics", "sklearn.pipeline", "soundfile",
    "matplotlib.pyplot", "jiwer", "pydantic", "requests",
)  # fmt: skip
READ_AT_IMPORT = ("HF_", "TRANSFORMERS_", "OMP_", "PYTHON", "MPL", "CUDA_")
"""How names of variables begin that libraries read as they are imported, apart from `READ_LATER`."""
READ_LATER = ("HF_TOKEN", "HF_XET_CLIENT_RETRY_MAX_ATTEMPTS", "PYTHONPATH")

CLIENT = """#!{real} -IS
import json, os, socket, sys
words, variables = sys.argv[1:], dict(os.environ)
if words[:1] == ["-u"]:  # pipes are flushed at the end all the same
    del words[0]
fixed = {{name: value for name, value in variables.items() if name.startswith({at_import}) and name not in {later}}}
if fixed != {fixed} or not words or (words[0].startswith("-") and words[0] not in ("-c", "-m")):
    os.execv({real!r}, [{real!r}, *words])
with socket.socket(socket.AF_UNIX) as server:
    server.connect({address!r})
    request = json.dumps({{"words": words, "folder": os.getcwd(), "variables": variables}}).encode()
    socket.send_fds(server, [len(request).to_bytes(8, "little")], [0, 1, 2])
    server.sendall(request)
    code = int(server.recv(16) or 70)
if code < 0:
    os.kill(os.getpid(), -code)
sys.exit(code)
"""


@contextmanager
def python(folder: Path) -> Iterator[str]:
    """The path of a program that stands for `sys.executable` as long as the block lasts; made in `folder`."""
    if sys.platform != "linux":
        yield sys.executable
        return
    address, program = str(folder / "server"), folder / "python"
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    client = {"real": sys.executable, "address": address, "at_import": READ_AT_IMPORT, "later": READ_LATER}
    program.write_text(CLIENT.format(**client, fixed=_fixed(variables)))
    program.chmod(0o755)
    command = [sys.executable, __file__, address, str(program)]
    with subprocess.Popen(command, env=variables, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        assert server.stdout.readline() == b"listening\n"
        yield str(program)
        server.stdin.close()  # it ends then


def _fixed(variables: dict[str, str]) -> dict[str, str]:
    return {
        name: value for name, value in variables.items() if name.startswith(READ_AT_IMPORT) and name not in READ_LATER
    }


# -------------------------------------------------------------------------------------------------- inside the server


def serve(address: str) -> dict | None:
    """Fork for each request, until the tests end; what is returned in a fork is what it has to do."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen()
    print("listening", flush=True)
    waiting: list[int] = []
    while sys.stdin not in select.select([listener, sys.stdin], [], [])[0]:
        waiting = [pid for pid in waiting if os.waitpid(pid, os.WNOHANG)[0] == 0]
        connection = listener.accept()[0]
        waiting.append(os.fork())
        if waiting[-1] == 0:
            listener.close()
            return begin(connection)
        connection.close()
    for pid in waiting:
        os.waitpid(pid, 0)
    return None


def begin(connection: socket.socket) -> dict:
    """Fork once more, and return in the program; the other one waits for it, and ends it if nobody waits any more."""
    size, streams, _, _ = socket.recv_fds(connection, 8, 3)
    with connection.makefile("rb") as sent:
        request = json.loads(sent.read(int.from_bytes(size, "little")))
    program = os.fork()
    if program == 0:
        connection.close()
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        return request
    for stream in (0, 1, 2, *streams):
        os.close(stream)
    ended = os.pidfd_open(program)
    if ended not in select.select([ended, connection], [], [])[0]:
        os.kill(program, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(program, 0)[1])
    connection.sendall(str(code).encode())
    os._exit(0)


def run(request: dict, program: str, path: list[str]) -> None:
    """Do what `python` with these words does."""
    import importlib
    import runpy
    import types

    first, *words = request["words"]
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["variables"])
    sys.executable = program
    more = [place for place in os.environ.get("PYTHONPATH", "").split(os.pathsep) if place]
    beside = {"-c": "", "-m": os.getcwd()}
    sys.path[:] = [beside.get(first, str(Path(first).resolve().parent)), *more, *path]
    importlib.invalidate_caches()
    sys.path_importer_cache.clear()
    main = sys.modules["__main__"] = types.ModuleType("__main__")
    if first == "-c":
        sys.argv[:] = ["-c", *words[1:]]
        exec(compile(words[0], "<string>", "exec"), main.__dict__)
    elif first == "-m":
        sys.argv[:] = words
        runpy._run_module_as_main(words[0])  # type: ignore[attr-defined]  # as Python itself does
    else:
        sys.argv[:] = [first, *words]
        runpy.run_path(first, run_name="__main__")


def end(code: object) -> None:
    """End as `python` does, but for its last second: it would write to all the memory that the forks share."""
    import atexit
    import threading

    if not isinstance(code, int | None):
        print(code, file=sys.stderr)
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]  # waits for threads
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code or 0)


def main(address: str, program: str) -> None:
    """Import the libraries, and serve."""
    import gc
    import importlib

    installed = sys.path[1:]
    for library in LIBRARIES:
        importlib.import_module(library)
    assert not [name for name in sys.modules if name.split(".")[0].endswith("ser_mtl")]
    gc.freeze()
    request = serve(address)
    if request is not None:
        try:
            run(request, program, installed)
            end(0)
        except SystemExit as stop:
            end(stop.code)
        except BaseException:
            sys.excepthook(*sys.exc_info())
            end(1)


if __name__ == "__main__":
    main(*sys.argv[1:])
