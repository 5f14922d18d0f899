"""The texts of one's own that a run was trained on, read again for its report."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlxstories.data.config import DataConfig
from mlxstories.data.dataset import is_prepared
from mlxstories.data.readers import named_documents
from mlxstories.data.texts import read_texts
from mlxstories.data.verbatim import Passage, longest
from mlxstories.errors import StoriesError
from mlxstories.storage.serialize import from_dict

_MOST = 50_000_000  # bytes of files that are read again


@dataclass(frozen=True)
class OwnText:
    """Training texts with the names of their files, and one that was held out."""

    train: list[tuple[str | None, str]]
    held_out: str

    def shared(self, stories: list[str]) -> list[Passage | None]:
        """The longest passage that each story shares with the training texts."""
        return longest(stories, self.train)


def own_text(config: dict[str, Any]) -> OwnText | None:
    """Of a run's configuration; None for other sources, much text, or files that are no longer there."""
    with contextlib.suppress(StoriesError, OSError):
        data = from_dict(DataConfig, config.get("data"), "data")
        if isinstance(data.source, str) or is_prepared(data):
            return None
        if sum(file.stat().st_size for path in data.source for file in _files(Path(path))) > _MOST:
            return None
        texts = read_texts(data)
        found = named_documents(data.source, field=data.field, separator=data.separator)
        names = {text: path.name for path, text in found}
        return OwnText([(names.get(text), text) for text in texts.train], texts.val[0])
    return None


def _files(path: Path) -> list[Path]:
    return list(path.rglob("*")) if path.is_dir() else [path]
