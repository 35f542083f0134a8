"""Chromium, without a window: that of the system, driven by Playwright."""

import shutil
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
_DROP = """([content, name]) => {
    const bytes = Uint8Array.from(atob(content), (character) => character.charCodeAt(0));
    const transfer = new DataTransfer();
    transfer.items.add(new File([bytes], name, { type: "audio/wav" }));
    return transfer;
}"""


@contextmanager
def chromium() -> Iterator:
    """A browser whose microphone hears beeps; the test is skipped where there is none."""
    program = next((found for name in NAMES if (found := shutil.which(name))), None)
    playwright = pytest.importorskip("playwright.sync_api")
    if program is None:
        pytest.skip("no Chromium is installed")
    # A sandbox needs rights that root of a container does not have; what is shown is our own.
    flags = ["--no-sandbox", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=flags)
        yield browser
        browser.close()


def drop(page, selector: str, file: Path) -> None:
    """Drop a file there, as a mouse does."""
    transfer = page.evaluate_handle(_DROP, [b64encode(file.read_bytes()).decode(), file.name])
    page.dispatch_event(selector, "drop", {"dataTransfer": transfer})
