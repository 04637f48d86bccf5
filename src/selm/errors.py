"""The one exception that means: the user can mend this."""


class UserError(Exception):
    """A mistake in a recipe, a path, a dataset or the order of commands.

    Scripts print its text as one line, without a traceback, and exit with 2. The text names the
    file or the key, and the fix.
    """
