"""The exceptions that end a script with one line instead of a traceback."""


class UserError(Exception):
    """A mistake in a recipe, a path, a dataset or the order of commands.

    Scripts print its text as one line, without a traceback, and exit with 2. The text names the
    file or the key, and says how to fix it.
    """


class SharedError(UserError):
    """A mistake that all processes of a training find together; only the main process prints it."""


class OutsideError(Exception):
    """The Hub or the network failed for longer than the code waits.

    Scripts print its text as one line and exit with 1: the same command may work later.
    """

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status
