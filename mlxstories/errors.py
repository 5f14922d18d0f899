"""The one exception for bad input."""


class StoriesError(Exception):
    """Bad input from the user: one line that names the input, what is wrong and what to do.

    The command line prints it without a traceback and ends with exit code 2.
    """
