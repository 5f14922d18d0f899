"""Figures and reports, from run files and results."""

from mlxstories.errors import StoriesError

try:
    import matplotlib  # noqa: F401
except ValueError as error:  # a backend that it does not have
    raise StoriesError(f"matplotlib does not start, see MPLBACKEND: {error}") from error
