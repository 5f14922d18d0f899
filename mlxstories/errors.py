"""The one exception for bad input."""


class StoriesError(Exception):
    """Bad input from the user: one line that names the input, what is wrong and what to do.

    The command line prints it without a traceback and ends with exit code 2. Line breaks and other unprintable
    characters, which names of files and messages of libraries may hold, are made visible.
    """

    def __init__(self, message: str):
        text = " ".join(message.split())
        super().__init__("".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text))
