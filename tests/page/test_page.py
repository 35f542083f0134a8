"""The page, end to end: a real server, and a browser where one is installed."""

import os
import re
import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from threading import Event
from time import sleep
from urllib.parse import urlsplit

import numpy as np
import pytest
import soundfile
from helpers.browser import chromium, drop
from helpers.tiny import SAMPLING_RATE, check_one_line, run_script, tone

import ser_mtl

pytest.importorskip("gradio")
from ser_mtl.page import app
from ser_mtl.page.app import clip_of, delete_old, running  # after it is known that Gradio is there
from ser_mtl.page.clips import Limits

DROP = "button[aria-label^='Drop an audio file']"
LIMITS = Limits(seconds=20, megabytes=1)
HERE = "127.0.0.1"


class Network:
    """The addresses that this process has connected to."""

    def __init__(self) -> None:
        self.seen: set[str] = set()
        sys.addaudithook(self._note)  # it stays as long as the process

    def _note(self, event: str, args: tuple) -> None:
        if event == "socket.connect" and isinstance(args[1], tuple):
            self.seen.add(args[1][0])
        if event == "socket.getaddrinfo" and args[0] is not None:
            self.seen.add(str(args[0]))


@pytest.fixture(scope="module")
def network() -> Network:
    return Network()


@pytest.fixture(scope="module")
def recognizer(small_model):
    return ser_mtl.load(small_model)


@pytest.fixture(scope="module", autouse=True)
def temporary(tmp_path_factory) -> Iterator[Path]:
    """Where this process writes temporary files."""
    before, folder = tempfile.tempdir, tmp_path_factory.mktemp("temporary")
    tempfile.tempdir = str(folder)
    yield folder
    tempfile.tempdir = before


@pytest.fixture(scope="module")
def url(recognizer, network, temporary):
    """The address of the page, which is served where a proxy is named that does not know this machine."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("NO_PROXY", "")
        environment.setenv("no_proxy", "")
        environment.setenv("http_proxy", f"http://{HERE}:9")
        with running(recognizer, LIMITS) as address:
            yield address.rstrip("/")


@pytest.fixture(scope="module")
def browser(url):
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def opened(browser, url):
    """Opens the page anew, in the width of a telephone; `requested` are the hosts that it asked."""

    def opened_anew(theme: str = "light"):
        page = browser.new_page(viewport={"width": 400, "height": 800}, color_scheme=theme)
        page.requested = set()
        page.on("request", lambda request: page.requested.add(urlsplit(request.url).hostname))
        page.goto(url)
        page.wait_for_selector(DROP)
        return page

    return opened_anew


@pytest.fixture
def page(opened):
    """The page."""
    page = opened()
    yield page
    page.close()


@pytest.fixture(scope="module")
def answered(opened, clip):
    """The page with the answer to the clip."""
    page = opened()
    drop(page, DROP, clip)
    page.wait_for_selector(".ser-answer")
    yield page
    page.close()


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    """Two tones with a pause between them."""
    file = tmp_path_factory.mktemp("clips") / "two tones.wav"
    samples = np.concatenate([tone(300, 1), np.zeros(2 * SAMPLING_RATE), tone(500, 1)])
    soundfile.write(file, samples, SAMPLING_RATE)
    return file


def kept() -> list[Path]:
    """Temporary files that are there."""
    return [file for file in Path(tempfile.gettempdir()).rglob("*") if file.is_file()]


def test_a_dropped_clip_is_answered(answered, recognizer, clip):
    answer = recognizer(clip)
    shown = answered.inner_text(".ser-answer")
    assert clip.name in shown
    for task in ("emotion", "gender", "style"):
        assert answer[task]["label"] in shown
        for label, p in answer[task]["probabilities"].items():
            assert label in shown and f"{100 * p:.0f} %" in shown
    assert len(answer["segments"]) == answered.locator("li button[data-start]").count() == 2
    assert answered.locator(".ser-bands rect").count() == 2 * len(answer["emotion"]["probabilities"])
    assert all(segment["transcript"] in shown for segment in answer["segments"])


def test_labels_are_text_whatever_they_hold(answered):
    assert answered.evaluate("window.harm") is None
    assert answered.locator(".ser-answer img, .ser-answer script, footer.ser script").count() == 0


def test_nothing_is_kept_and_nobody_is_asked(answered, network):
    assert kept() == []
    assert answered.requested <= {HERE, None}  # none: what the page holds itself
    assert network.seen <= {HERE, "localhost", "::1"}


def test_a_text_file_named_wav_gets_the_line_of_the_recognizer(page, tmp_path, recognizer):
    (tmp_path / "text.wav").write_text("this is no sound\n" * 10)
    drop(page, DROP, tmp_path / "text.wav")
    page.wait_for_selector("[role=alert].ser-error")
    with pytest.raises(ser_mtl.UserError) as raised:
        recognizer(tmp_path / "text.wav")
    assert str(raised.value).removeprefix(f"{tmp_path}/") in page.inner_text(".ser-error")
    assert kept() == []


def test_a_voice_is_recorded_and_answered(page):
    page.get_by_label("Record audio").click()
    page.get_by_role("button", name="Record", exact=True).click()
    page.wait_for_timeout(1500)
    page.get_by_role("button", name="Stop").first.click()
    page.wait_for_selector(".ser-answer")


def test_a_segment_plays_by_keyboard_until_its_end(answered):
    for _ in range(30):
        answered.keyboard.press("Tab")
        if answered.evaluate("document.activeElement.matches('li button[data-start]')"):
            break
    answered.keyboard.press("Enter")
    player = "document.querySelector('.ser-answer audio')"
    answered.wait_for_function(f"{player}.currentTime > 0.2")
    answered.wait_for_function(f"{player}.paused")
    end = float(answered.locator("li button[data-start]").first.get_attribute("data-end"))
    assert end <= answered.evaluate(f"{player}.currentTime") < end + 0.6


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_page_fits_a_telephone_in_both_themes(opened, clip, theme):
    page = opened(theme)
    drop(page, DROP, clip)
    page.wait_for_selector(".ser-answer")
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    ink, paper = (
        sum(map(float, page.evaluate(f"getComputedStyle(document.querySelector('{where}')).{what}")[4:-1].split(",")))
        for where, what in ((".ser h2", "color"), ("body", "backgroundColor"))
    )
    assert (ink < 200 and paper > 600) if theme == "light" else (ink > 600 and paper < 200)
    page.close()


def test_an_address_is_not_fetched():
    with pytest.raises(ser_mtl.UserError, match="fetches nothing"):
        clip_of(LIMITS).async_move_resource_to_block_cache("http://127.0.0.1/a.wav").send(None)  # its first step


def test_files_of_the_machine_are_not_read(url, tmp_path, capfd):
    httpx = pytest.importorskip("httpx")
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    for path in (str(secret), "README.md", f"../..{secret}"):
        answer = httpx.get(f"{url}/gradio_api/file={path}")
        assert answer.status_code in (403, 404) and "secret" not in answer.text.replace(str(secret), "")
    meta = {"_type": "gradio.FileData"}
    named = [{"path": path, "meta": meta} for path in (str(secret), f"{url}/theme.css", "a\0b", "x" * 5000)]
    for clip in (str(secret), 3, *named):
        event = httpx.post(f"{url}/gradio_api/call/answer", json={"data": [clip]}).json()["event_id"]
        answer = httpx.get(f"{url}/gradio_api/call/answer/{event}").text
        assert answer.startswith("event: error") and re.search("send a recording|fetches nothing", answer)
    unknown = {"data": [None], "fn_index": 99, "session_hash": "a"}
    assert httpx.post(f"{url}/gradio_api/queue/join", json=unknown).status_code == 500
    assert "Traceback" not in capfd.readouterr().err
    assert secret.exists() and kept() == []


def test_a_file_that_is_too_large_is_refused_while_it_comes(url):
    httpx = pytest.importorskip("httpx")
    answer = httpx.post(f"{url}/gradio_api/upload", files={"files": ("big.wav", bytes(LIMITS.size + 1))})
    assert answer.status_code == 413 and kept() == []


def test_the_same_clip_of_two_people_at_once_is_answered_twice(url, clip):
    httpx = pytest.importorskip("httpx")
    upload = {"files": (clip.name, clip.read_bytes())}
    places = [httpx.post(f"{url}/gradio_api/upload", files=upload).json()[0] for _ in range(2)]
    for place in places:  # the first answer deletes its file
        data = {"data": [{"path": place, "meta": {"_type": "gradio.FileData"}}]}
        event = httpx.post(f"{url}/gradio_api/call/answer", json=data).json()["event_id"]
        answer = httpx.get(f"{url}/gradio_api/call/answer/{event}", timeout=60).text
        assert "ser-answer" in answer and "No answer" not in answer
    assert len(set(places)) == 2 and kept() == []


def test_the_end_waits_for_the_answer_that_is_computed(recognizer, clip, temporary, monkeypatch):
    httpx = pytest.importorskip("httpx")
    begun, done = Event(), Event()

    def slow(*_: object) -> str:
        begun.set()
        sleep(1)
        done.set()
        return ""

    with running(recognizer, LIMITS) as url:
        monkeypatch.setattr(app, "answer_file", slow)
        place = httpx.post(f"{url}gradio_api/upload", files={"files": ("a.wav", clip.read_bytes())}).json()[0]
        data = {"data": [{"path": place, "meta": {"_type": "gradio.FileData"}}]}
        httpx.post(f"{url}gradio_api/call/answer", json=data)
        assert begun.wait(20)
    assert done.is_set()


def test_what_nobody_asks_an_answer_for_goes_too(tmp_path):
    for name, age in (("old", 200), ("new", 20)):
        (tmp_path / name).write_text("a")
        past = (tmp_path / name).stat().st_mtime - age
        os.utime(tmp_path / name, (past, past))
    delete_old(tmp_path, 120)
    assert [file.name for file in tmp_path.iterdir()] == ["new"]


def test_a_port_that_is_taken_is_one_line(small_model, temporary):
    before = set(temporary.iterdir())
    with socket.create_server((HERE, 0)) as taken:
        port = taken.getsockname()[1]
        check_one_line(run_script("page", ["--model", small_model, "--port", port]), "page", f"--port {port}")
    for host in ("999.1.1.1", "é" * 300):
        check_one_line(run_script("page", ["--model", small_model, "--host", host]), "page", "cannot be served there")
    assert set(temporary.iterdir()) == before


def test_without_gradio_there_is_one_line(monkeypatch, small_model):
    monkeypatch.setitem(sys.modules, "gradio", None)
    check_one_line(run_script("page", ["--model", small_model]), "page", "pip install gradio")
