"""An uploaded recording: its limits, and its samples. Its file is deleted before anything is computed."""

from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from recordings_ser_mtl import to_mono_16k
from ser_mtl.corpora.reading import read_audio
from ser_mtl.errors import UserError

_TOO_LONG = "{name}: lasts {seconds} seconds; this page takes {limit:g} at most: cut it"


class Limits(NamedTuple):
    """The limits of a clip.

    Attributes:
        seconds: of the recording.
        megabytes: of its file, in units of 2**20 bytes.
    """

    seconds: float = 300.0
    megabytes: float = 25.0

    @property
    def size(self) -> int:
        """The most bytes of a file."""
        return int(self.megabytes * 2**20)


def take(path: Path, limits: Limits) -> BytesIO:
    """The content of an upload, whose file is then deleted.

    Raises:
        UserError: it is too large, or gone.
    """
    try:
        with path.open("rb") as file:
            content = BytesIO(file.read(limits.size + 1))
    except FileNotFoundError:  # files of the same content share a path
        raise UserError(f"{path.name}: was sent twice at the same moment; drop it again") from None
    finally:
        path.unlink(missing_ok=True)
        with suppress(OSError):
            path.parent.rmdir()
    if content.getbuffer().nbytes > limits.size:
        raise UserError(f"{path.name}: holds more than {limits.megabytes:g} MB, which this page does not take")
    if content.getbuffer().nbytes == 0:
        raise UserError(f"{path.name}: cannot be read as audio: it is empty; replace or remove it")
    content.name = path.name
    return content


def samples_of(file: BinaryIO, limits: Limits) -> np.ndarray:
    """Mono samples at 16 kHz, (samples,) int16.

    Raises:
        UserError: it cannot be read, or is too long.
    """
    return to_mono_16k(*read_audio(file, limits.seconds, _TOO_LONG))
