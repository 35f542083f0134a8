"""The page and its server, with Gradio. It makes no connections of its own."""

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event, Thread
from time import time
from typing import Any

import numpy as np
import soundfile

from answers_ser_mtl import transcript_source
from recordings_ser_mtl import SAMPLING_RATE
from ser_mtl.errors import UserError
from ser_mtl.inference.recognizer import Recognizer
from ser_mtl.page import rendering
from ser_mtl.page.clips import Limits, samples_of, take
from ser_mtl.safe_text import printable

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when it is imported

import gradio
from gradio_client.utils import is_http_url_like

_PLACE = "GRADIO_TEMP_DIR"  # variable of the environment
_WAITING = 20  # clips; one is answered at a time
_NOT_THERE = "--host {host}, --port {port}: the page cannot be served there ({error})"
_FORGOTTEN = 120  # seconds after which an upload is deleted if it was not submitted
_LONGEST_LINE = 500  # characters, in the log
_FONTS = ["system-ui", "sans-serif"]  # of the reader's machine: none is fetched


def clip_of(limits: Limits) -> gradio.Audio:
    """The component for recording or dropping a clip. A URL, which Gradio would fetch, is refused."""
    clip = gradio.Audio(
        sources=["upload", "microphone"],
        type="filepath",
        label=f"A clip of at most {rendering.length(limits.seconds)} and {limits.megabytes:g} MB",
        buttons=[],
        editable=False,
    )
    move = clip.async_move_resource_to_block_cache

    async def move_upload(place: str | None) -> str | None:
        if place is not None and is_http_url_like(str(place)):
            raise UserError("an address: this page fetches nothing; send the recording itself")
        return await move(place)

    clip.async_move_resource_to_block_cache = move_upload  # a subclass would make Gradio write a .pyi beside this file
    return clip


def answer_clip(recognizer: Recognizer, path: Path, limits: Limits) -> str:
    """The answer to an upload as HTML, or why there is none. The upload is deleted first."""
    try:
        return answer_file(recognizer, take(path, limits), limits)
    except UserError as fault:
        return rendering.error(str(fault))


def answer_file(recognizer: Recognizer, file: BytesIO, limits: Limits) -> str:
    """The answer to the content of a file as HTML.

    Raises:
        UserError: there is none.
    """
    samples = samples_of(file, limits)
    (answered,) = recognizer([(samples, SAMPLING_RATE)])
    return rendering.answer(file.name, samples, answered)


def warm_up(recognizer: Recognizer, limits: Limits) -> None:
    """Answer five seconds of noise: the first answer takes longer than the others, and no user should wait for it."""
    file = BytesIO()
    noise = np.random.default_rng(0).normal(0, 0.1, 5 * SAMPLING_RATE)
    soundfile.write(file, noise, SAMPLING_RATE, format="WAV")
    file.seek(0)
    file.name = "noise"
    answer_file(recognizer, file, limits._replace(seconds=5))


def build(recognizer: Recognizer, limits: Limits) -> gradio.Blocks:
    """The page of a model."""
    labels = recognizer.labels
    transcribes = recognizer.transcript and transcript_source(recognizer.model) is not None

    def respond(path: str | None) -> tuple[str, None]:
        return (answer_clip(recognizer, Path(path), limits) if path else ""), None

    with gradio.Blocks(title="Speech emotion recognition", analytics_enabled=False) as page:
        gradio.HTML(rendering.page_head(labels, transcribes))
        clip = clip_of(limits)
        answer = gradio.HTML(
            html_template='<div aria-live="polite">${value}</div>',
            js_on_load=(rendering.TEMPLATES / "player.js").read_text(encoding="utf-8"),
        )
        gradio.HTML(rendering.page_foot(labels))
        gradio.on([clip.upload, clip.stop_recording], respond, clip, [answer, clip], api_name="answer")
    refuse_quietly(page)
    return page.queue(max_size=_WAITING, default_concurrency_limit=1)


@contextmanager
def running(
    recognizer: Recognizer, limits: Limits, host: str | None = "127.0.0.1", port: int | None = None
) -> Iterator[str]:
    """Serve the page of a model inside the block, and yield its address.

    Args:
        recognizer: answers.
        limits: of a clip.
        host: the address that the server listens on; None leaves it to the environment, as on a Space.
        port: by default the first free one from 7860 on.

    Raises:
        UserError: the server cannot listen there.
    """
    _check_free(host, port)
    warm_up(recognizer, limits)
    ended = Event()
    logging.getLogger("uvicorn.error").addFilter(_short)
    _ask_directly("127.0.0.1", "localhost", *([host] if host else []))
    with _uploads() as folder:
        page = build(recognizer, limits)
        Thread(target=_tidy, args=(folder, ended), daemon=True).start()
        try:
            _, url, _ = page.launch(**_launch(limits), server_name=host, server_port=port)
            yield url
        except OSError as error:
            raise UserError(_NOT_THERE.format(host=host, port=port, error=error)) from error
        finally:
            ended.set()
            page.close(verbose=False)


def _check_free(host: str | None, port: int | None) -> None:
    """Check that the server can listen there: Gradio would print several lines and no reason.

    Raises:
        UserError: it cannot.
    """
    try:
        if host is not None:
            socket.create_server((host, port or 0)).close()
    except (OSError, TypeError) as error:  # TypeError: not a host name
        reason = str(getattr(error, "strerror", None) or error).partition(" (while")[0]
        raise UserError(_NOT_THERE.format(host=host, port=port, error=reason)) from error


def _ask_directly(*hosts: str) -> None:
    """Exempt these hosts from a proxy in the environment: Gradio asks its own server whether it runs."""
    for name in ("NO_PROXY", "no_proxy"):
        os.environ[name] = ",".join([*filter(None, [os.environ.get(name)]), *hosts])


@contextmanager
def _uploads() -> Iterator[Path]:
    """A temporary folder for Gradio's files."""
    before = os.environ.get(_PLACE)
    with TemporaryDirectory(prefix="ser-mtl-page-") as folder:
        os.environ[_PLACE] = folder
        try:
            yield Path(folder)
        finally:
            del os.environ[_PLACE]
            if before is not None:
                os.environ[_PLACE] = before


def serve(recognizer: Recognizer, limits: Limits, host: str | None = "127.0.0.1", port: int | None = None) -> None:
    """Serve the page until the program is stopped; as `running`."""
    with running(recognizer, limits, host, port) as url:
        print(f"{url}  (Ctrl-C ends it)", flush=True)
        Event().wait()


def _launch(limits: Limits) -> dict:
    """Gradio's settings: it shares, reads and fetches nothing."""
    return {
        "prevent_thread_lock": True,
        "quiet": True,
        "inbrowser": False,
        "share": False,
        "ssr_mode": False,
        "mcp_server": False,
        "pwa": False,
        "enable_monitoring": False,
        "run_history": False,
        "footer_links": [],
        "allowed_paths": [],
        "max_file_size": limits.size,
        "theme": gradio.themes.Default(font=_FONTS, font_mono=["ui-monospace", "monospace"]),
        "css": (rendering.TEMPLATES / "page.css").read_text(encoding="utf-8"),
    }


def _short(record: logging.LogRecord) -> bool:
    """A log filter: leaves out failed requests for a clip just sent, which browsers make to draw it.

    Any other request that Gradio cannot answer becomes one line, without the traceback.
    """
    error = record.exc_info[1] if record.exc_info else None
    if error is not None:
        line = printable(f"a request failed: {type(error).__name__}: {error}")
        record.msg, record.args, record.exc_info, record.exc_text = line[:_LONGEST_LINE], (), None, None
    return not isinstance(error, FileNotFoundError)


def refuse_quietly(page: gradio.Blocks) -> None:
    """Make anything sent in place of a clip an error for the sender, not a traceback in the server's log."""
    preprocess = page.preprocess_data

    async def preprocess_or_refuse(*args: Any, **options: Any) -> list:
        try:
            return await preprocess(*args, **options)
        except UserError as error:
            raise gradio.Error(str(error), print_exception=False) from error
        except Exception as error:
            raise gradio.Error("send a recording to this page, and name it", print_exception=False) from error

    page.preprocess_data = preprocess_or_refuse


def _tidy(folder: Path, ended: Event) -> None:
    """Until the page ends, delete uploads that were never answered, such as interrupted ones."""
    while not ended.wait(_FORGOTTEN / 4):
        delete_old(folder, _FORGOTTEN)


def delete_old(folder: Path, seconds: float) -> None:
    """Delete the files below a folder that have not changed for so long."""
    for file in folder.rglob("*"):
        try:
            if file.is_file() and time() - file.stat().st_mtime > seconds:
                file.unlink()
        except FileNotFoundError:  # it was answered meanwhile
            continue
