"""Command lines whose mistakes are one line."""

import argparse
import math
from collections.abc import Callable, Iterable
from contextlib import suppress
from difflib import get_close_matches
from typing import NoReturn

from ser_mtl.errors import UserError


class OneLineErrors:
    """Mixed into an `ArgumentParser`, turns mistakes on the command line into a `UserError`."""

    _option_string_actions: dict[str, argparse.Action]

    def parse_args(self, args=None, namespace=None):
        """As in argparse, but a flag that does not exist is reported before an argument that is missing."""
        known = self._option_string_actions
        for flag in (word.split("=")[0] for word in args or () if word.startswith("--") and word != "--"):
            if flag not in known:
                usual = [option for option in known if "-" not in option.lstrip("-")]
                self.error(f"unrecognized arguments: {flag}{did_you_mean('--' + flag[2:].replace('-', '_'), usual)}")
        return super().parse_args(args, namespace)  # type: ignore[misc]

    def print_help(self, file=None) -> None:
        """As in argparse, which hides that a pipe is closed or a disk full."""
        print(self.format_help(), end="", file=file)  # type: ignore[attr-defined]

    def error(self, message: str) -> NoReturn:
        """Say what is wrong in one line, without argparse's usage."""
        raise UserError(f"{message}; --help explains every flag")


class OneLineParser(OneLineErrors, argparse.ArgumentParser):
    """A parser whose mistakes are a `UserError`, also an empty word: a variable that a script left unset."""

    def parse_args(self, args=None, namespace=None):
        """Refuse empty words, which would mean the current folder, or the default."""
        words = list(args or ())
        for before, word in zip([self.prog, *words], words, strict=False):
            if not word or (word.endswith("=") and word[:-1] in self._option_string_actions):
                self.error(f"{word[:-1] or before}: is followed by nothing; give a value, or leave it out")
        return super().parse_args(args, namespace)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint at the known word that is spelled most like this one, or nothing."""
    near = get_close_matches(word, list(known), n=1)
    return f" (did you mean {near[0]}?)" if near else ""


def number(kind: type, least: float, most: float) -> Callable[[str], float]:
    """The type of an argument that takes an int or float from `least` to `most`."""

    def parse(text: str) -> float:
        with suppress(ValueError):
            if least <= (value := kind(text)) <= most:
                return value
        bounds = f"from {least:g} to {most:g}" if most < math.inf else f"of at least {least:g}"
        raise argparse.ArgumentTypeError(f"{text!r} is not a {'whole ' if kind is int else ''}number {bounds}")

    return parse


def add_corpus(parser: argparse.ArgumentParser) -> None:
    """Declare how a command reads a corpus."""
    parser.add_argument(
        "--map", nargs="+", default=[], metavar="OLD=NEW", help="Rename labels; OLD= leaves its utterances out."
    )
    parser.add_argument("--no_check_counts", action="store_true", help="Accept an incomplete corpus.")
    parser.add_argument(
        "--distinct_speakers", action="store_true", help="The same name in two joined folders means two people."
    )


def add_base(parser: argparse.ArgumentParser) -> None:
    """Declare where the base of adapters is."""
    parser.add_argument(
        "--base", help="Hub id or folder of the base of adapters. [the one they name, or moved with them]"
    )


def add_loading(parser: argparse.ArgumentParser, transcript: bool = True) -> None:
    """Declare how a command loads the model that answers; with `transcript`, also whether it transcribes."""
    add_base(parser)
    if transcript:
        parser.add_argument(
            "--no_transcript", action="store_true", help="Leave the transcript out, which is faster with adapters."
        )
    parser.add_argument(
        "--dtype",
        default="float32",
        choices=["float32", "bfloat16", "auto"],
        help="Numbers to compute with; auto is bfloat16 where the device has instructions for it. [float32]",
    )
