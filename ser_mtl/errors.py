"""The one exception for what a user can put right."""


class UserError(Exception):
    """A mistake in the user's input: a flag, a file, a label.

    The message is one line that names the file or the flag and says what to do. The command line prints
    it without a traceback and exits with code 2 (`ser_mtl.training.steps.command_line`).
    """
