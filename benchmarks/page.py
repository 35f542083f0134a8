"""Seconds from dropping a clip on the page to its answer, in Chromium.

python benchmarks/page.py RUN            five seconds of noise
python benchmarks/page.py RUN CLIP       a recording
"""

import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import soundfile

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from helpers.browser import chromium, drop

import ser_mtl
from ser_mtl.page.app import running
from ser_mtl.page.clips import Limits

RATE, SECONDS, TIMES = 16_000, 5, 5
DROP = "button[aria-label^='Drop an audio file']"


def main(run: str, clip: Path) -> None:
    """Print the time of the first answer and of later ones, each on a freshly opened page."""
    with running(ser_mtl.load(run), Limits()) as url, chromium() as browser:
        seconds = []
        for _ in range(TIMES):
            page = browser.new_page()
            page.goto(url)
            page.wait_for_selector(DROP)
            start = time.perf_counter()
            drop(page, DROP, clip)
            page.wait_for_selector(".ser-answer")
            seconds.append(time.perf_counter() - start)
            page.close()
    print(f"first answer {seconds[0]:.2f} s, then {', '.join(f'{each:.2f}' for each in seconds[1:])}")


if __name__ == "__main__":
    with TemporaryDirectory() as folder:
        noise = Path(folder, "noise.wav")
        soundfile.write(noise, np.random.default_rng(0).normal(0, 0.1, SECONDS * RATE), RATE)
        main(sys.argv[1], Path(sys.argv[2]) if len(sys.argv) > 2 else noise)
