"""A folder in which code is fed with bad input, and a neighbourhood that it must leave alone."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from mlxstories.data import source
from mlxstories.data.dataset import DataConfig, load_dataset
from mlxstories.data.prepare import prepare
from mlxstories.export import export
from mlxstories.model import ModelConfig
from mlxstories.runs.directory import Run
from mlxstories.training import experiment
from mlxstories.training.config import TrainingConfig
from mlxstories.training.phases import PHASES


class Sandbox:
    """A folder with a good run to spoil, and a neighbour that nothing may touch."""

    def __init__(self, folder: Path):
        self.folder, self.target, self.outside = folder, folder / "target", folder / "outside"
        self.outside.mkdir()
        (self.outside / "kept").write_text("kept")
        (folder / "cwd").mkdir()
        self.good = _good_run(folder / "good")
        self.files = _contents(self.good)
        export(Run(self.good), folder / "exported")
        (folder / "stories.txt").write_text("\n\n".join(source.texts(40, 0)))
        prepare(DataConfig(source=str(folder / "stories.txt")), folder / "prepared")
        self.exported, self.prepared = (_contents(folder / name) for name in ("exported", "prepared"))
        self.names = {path.name for path in folder.iterdir()} | {"target"}

    @contextlib.contextmanager
    def fresh(self) -> Iterator[Path]:
        """An empty target to work in, seen from an empty working directory; then the neighbourhood is examined."""
        before = Path.cwd()
        self.target.mkdir()
        os.chdir(self.folder / "cwd")
        try:
            yield self.target
            assert (self.outside / "kept").read_text() == "kept", "a file outside was changed"
            assert [path.name for path in self.outside.iterdir()] == ["kept"], "a file outside was written"
            assert not list(Path.cwd().iterdir()), "a file was written to the working directory"
            assert {path.name for path in self.folder.iterdir()} == self.names, "a file was written beside"
        finally:
            os.chdir(before)
            shutil.rmtree(self.target)

    def run(self, changes: dict[str, bytes]) -> Run:
        """A copy of the good run with the content of some files changed."""
        return Run(self.copy("run", self.files | changes))

    def copy(self, name: str, files: dict[str, bytes]) -> Path:
        """A directory ``name`` of these files."""
        for path, content in files.items():
            file = self.target / name / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        return self.target / name


def _good_run(path: Path) -> Path:
    dataset = load_dataset(DataConfig(stories=6, validation=2))
    shape = ModelConfig(dataset.tokenizer.vocab_size, dim=8, layers=1, heads=1, context=64, separator=0)
    training = TrainingConfig(steps=6, batch_size=2, log_every=1, evaluations=3)
    trainer = experiment.start(path, dataset, shape, PHASES[1], training, lambda record: None)
    experiment.finish(trainer, trainer.train())
    (path / "result.json").unlink()  # so that it can be resumed
    return path


def _contents(folder: Path) -> dict[str, bytes]:
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}
