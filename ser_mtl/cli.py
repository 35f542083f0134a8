"""The command line: a user's mistake is one line on standard error and exit code 2."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

from ser_mtl.errors import UserError


def command_line(main: Callable[[], None]) -> None:
    """Run a program; a user's mistake is one line on standard error and exit code 2."""
    try:
        main()
    except UserError as error:
        if os.environ.get("LOCAL_RANK", "0") == "0":  # each process finds it, one says it
            print(f"{Path(sys.argv[0]).name}: {error}", file=sys.stderr)
        sys.exit(2)
