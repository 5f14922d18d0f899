"""A run in training as a page that keeps up with its files."""

from __future__ import annotations

from mlxstories.errors import StoriesError
from mlxstories.plots.report import page
from mlxstories.plots.report.stories import Story, stories
from mlxstories.plots.report.summary import read_summaries
from mlxstories.runs.directory import Run

_FILES = ("config.json", "metrics.jsonl", "findings.json", "result.json")


class LiveReport:
    """Reads a run's files, and never writes; ``count`` is how many stories each new checkpoint tells."""

    def __init__(self, run: Run, count: int):
        self._run, self._count = run, count
        self._told: list[Story] | str = "No stories yet: the first checkpoint tells them."
        self._teller: str | None = None

    def changed(self) -> tuple:
        """Something that is another when a file of the run is."""
        state = []
        for name in _FILES:
            try:
                stat = (self._run.path / name).stat()
                state.append((name, stat.st_mtime_ns, stat.st_size))
            except OSError:
                continue
        return (*state, self._newest())

    def html(self) -> str:
        """The page.

        Raises:
            StoriesError: the run's files are damaged or gone.
        """
        summaries = read_summaries([self._run])
        newest = self._newest()
        if self._count and newest not in (None, self._teller):
            try:
                self._told = stories(self._run, self._count, "last")
            except (StoriesError, OSError) as error:  # training may delete a checkpoint that is being read
                if not isinstance(self._told, list):
                    self._told = f"No stories: {error}"
            self._teller = newest
        return page.of_runs(summaries, {summaries[0].label: self._told}, live=True)

    def _newest(self) -> str | None:
        found = [path.name for path in (self._run.path / "checkpoints").glob("step-*")]
        return max(found, key=lambda name: (len(name), name), default=None)
