"""One shard of tokens, written as it grows."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from mlxstories.data.shards import Shard
from mlxstories.data.tokenizer import UNKNOWN, Tokenizer
from mlxstories.storage.files import PARTIAL, sync, writing


@dataclass
class ShardWriter:
    """One shard, written as it grows; ``close`` gives it its name."""

    path: Path
    part: str
    number: int
    tokenizer: Tokenizer
    shard: Shard = field(default_factory=lambda: Shard("", 0, 0, 0, 0, 0, "", ""))

    def __post_init__(self):
        self._digest = hashlib.sha256()
        self._lengths: list[np.ndarray] = []
        self._beside = self.path / f".{self.part}-{self.number:05}{PARTIAL}"

    def add(self, texts: Iterable[str]) -> int:
        """Append stories; how many were left out because they have no token."""
        found = [
            (tokens, text) for tokens, text in zip(self.tokenizer.encode_batch(texts), texts, strict=True)
        ]
        kept = [(tokens, text) for tokens, text in found if len(tokens)]
        if kept:
            lengths = np.array([len(tokens) for tokens, _ in kept], dtype="<u4")
            tokens = np.concatenate([tokens for tokens, _ in kept])
            content = tokens.astype(tokens.dtype.newbyteorder("<"), copy=False).tobytes()
            with writing(self.path), open(self._beside, "ab") as file:
                file.write(content)
            self._digest.update(content)
            self._lengths.append(lengths)
            shard = self.shard
            self.shard = replace(
                shard,
                stories=shard.stories + len(kept),
                tokens=shard.tokens + len(tokens),
                unknown=shard.unknown + int(np.count_nonzero(tokens == UNKNOWN)),
                longest=max(shard.longest, int(lengths.max())),
                text_bytes=shard.text_bytes + sum(len(text.encode("utf-8")) for _, text in kept),
            )
        return len(found) - len(kept)

    def close(self) -> Shard:
        content = np.concatenate(self._lengths).tobytes()
        digest = self._digest.hexdigest()
        name = f"{self.part}-{self.number:05}-{digest[:16]}"
        lengths = self.path / f".{name}{PARTIAL}"
        with writing(self.path):
            lengths.write_bytes(content)
            for beside, suffix in ((lengths, "lengths"), (self._beside, "tokens")):
                sync(beside)
                beside.replace(self.path / f"{name}.{suffix}")
            sync(self.path)
        sums = {"tokens_sha256": digest, "lengths_sha256": hashlib.sha256(content).hexdigest()}
        return replace(self.shard, name=name, **sums)
