"""Detect files that are cut off, in formats where libsndfile does not: MP3, Ogg and NIST SPHERE."""

import os
import re
from typing import BinaryIO

from ser_mtl.errors import UserError

_HEAD = 4096  # bytes read after an ID3 tag
_PAGE = 27 + 255 + 255 * 255  # bytes of the largest page of Ogg
_SLACK = 0.99  # of the bytes: some encoders count them before they write the last tag


def check_whole(file: BinaryIO, name: str) -> None:
    """Check that a file has the bytes that its header promises. The position in the file stays.

    Args:
        file: open and seekable.
        name: what the message begins with.

    Raises:
        UserError: the file is cut off.
    """
    place = file.tell()
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    head = file.read(_HEAD)
    promised = _promised_by_ogg(file, size) if head.startswith(b"OggS") else _promised_by_sphere(head)
    if promised == 0 and (head.startswith(b"ID3") or head[:1] == b"\xff"):
        promised = _promised_by_mp3(file, head)
    file.seek(place)
    if size < _SLACK * promised or (head.startswith(b"OggS") and size < promised):
        raise UserError(f"{name}: is cut off: {size} of the {promised} bytes in its header; replace or remove it")


def _promised_by_ogg(file: BinaryIO, size: int) -> int:
    """Where the last page ends, by the lengths of its segments in its header."""
    file.seek(max(0, size - _PAGE))
    tail = file.read(_PAGE)
    start = tail.rfind(b"OggS\0")
    page = tail[start:]
    segments = page[26] if len(page) > 26 else 1
    lengths = page[27 : 27 + segments]
    whole = 27 + segments + (sum(lengths) if len(lengths) == segments else 1)
    return size - len(tail) + start + whole if start >= 0 else 0


def _promised_by_mp3(file: BinaryIO, head: bytes) -> int:
    """The bytes that the first frame's Xing or VBRI tag promises, after the ID3 tag; 0 if there is none."""
    start = 0
    if head.startswith(b"ID3") and len(head) >= 10:
        digits = head[6:10]
        start = 10 + sum((digit & 127) << shift for digit, shift in zip(digits, (21, 14, 7, 0), strict=True))
        file.seek(start)
        head = file.read(_HEAD)
    if found := re.search(rb"(?:Xing|Info)\0\0\0(.)(.{4})(.{4})", head[:64], re.DOTALL):
        has_frames, has_bytes = found[1][0] & 1, found[1][0] & 2
        return start + int.from_bytes(found[3] if has_frames else found[2], "big") if has_bytes else 0
    if head[36:40] == b"VBRI":
        return start + int.from_bytes(head[46:50], "big")
    return 0


def _promised_by_sphere(head: bytes) -> int:
    """The bytes of a NIST SPHERE file without compression; 0 for another file."""
    found = re.match(rb"NIST_1A\n *(\d{1,9})\n", head)
    fields = dict(re.findall(rb"(\w+) -i (\d{1,18})", head)) if found and b"embedded" not in head else {}
    numbers = [int(fields.get(name, 0)) for name in (b"sample_count", b"channel_count", b"sample_n_bytes")]
    return int(found[1]) + numbers[0] * numbers[1] * numbers[2] if found and all(numbers) else 0
