"""An epoch over more stories than can be arranged at once: a window of them after another."""

from __future__ import annotations

import numpy as np

from mlxstories.data.packing import Arrangement, Documents, arrange

MOST_STORIES = 2**20  # of a window: about 100 MB while it is arranged, 40 MB afterwards
MOST_TARGETS = 2**28  # of a window: 512 MB of 16-bit tokens
BLOCK = 2**16  # tokens read in one piece


class Windows:
    """The windows of one epoch, arranged when they are asked for.

    A corpus of at most ``MOST_STORIES`` is a single window. A larger one is cut into blocks of neighbouring
    stories, about 128 KB each; each epoch deals the blocks out to the windows anew, at random, so that a
    window mixes stories from everywhere and yet is read in long runs.

    Args:
        documents: the stories.
        context, layout: as :func:`arrange` takes them.
        seed, epoch: of everything that is drawn.
    """

    def __init__(self, documents: Documents, context: int, *, layout: str, seed: int, epoch: int):
        self._documents, self._context, self._layout = documents, context, layout
        self._seed = (seed, epoch)
        tokens = np.arange(0, max(1, int(documents.offsets[-1])), BLOCK)
        starts = np.unique(np.searchsorted(documents.offsets[:-1], tokens))
        self._blocks = np.append(starts[starts < len(documents)], len(documents))
        wanted = max(-(-len(documents) // MOST_STORIES), -(-documents.targets // MOST_TARGETS), 1)
        blocks = len(self._blocks) - 1
        order = np.random.default_rng(self._seed).permutation(blocks)
        self._dealt = np.array_split(order, min(wanted, max(1, blocks)))

    def __len__(self) -> int:
        return len(self._dealt)

    def __getitem__(self, index: int) -> Arrangement:
        if len(self) == 1:
            rng, stories = np.random.default_rng(self._seed), None
        else:
            rng = np.random.default_rng((*self._seed, index + 1))
            runs = [np.arange(self._blocks[b], self._blocks[b + 1]) for b in np.sort(self._dealt[index])]
            stories = np.concatenate(runs)
        return arrange(self._documents, self._context, layout=self._layout, rng=rng, stories=stories)
