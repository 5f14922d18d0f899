"""Faults of how stories are cut into rows, and of what counts there."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from mlxstories.data.packing import Documents, Rows
from mlxstories.data.tokenizer import END
from mlxstories.faults.fault import Faults, change
from mlxstories.faults.recipe import padded_rows

FAULTS = Faults("cutting")
PIECE = 48  # tokens


def filled_up(pieces: list[np.ndarray], context: int, rng: np.random.Generator | None) -> Rows:
    """A piece a row: tokens with the one before them, the rest of the row padding."""
    if rng is not None:
        pieces = [pieces[i] for i in rng.permutation(len(pieces))]
    cells = np.full((len(pieces), context + 1), END, np.int32)
    mask = np.zeros((len(pieces), context), np.float32)
    for row, real, piece in zip(cells, mask, pieces, strict=True):
        length = min(len(piece), context + 1)
        row[:length], real[: length - 1] = piece[:length], 1.0
    nought = np.zeros(mask.shape, np.int32)
    return Rows(cells[:, :-1], cells[:, 1:], mask, nought, nought)


def by_bare_lengths(documents: Documents, context: int, rng: np.random.Generator | None) -> Rows:
    """Rows of one array of all stories and their ends, by an index that knows nothing of the ends."""
    stream = np.concatenate([part for story in documents for part in ([END], story)] + [[END]])
    starts = np.cumsum(np.append(0, documents.lengths))
    pieces = [stream[start : end + 1] for start, end in pairwise(starts)]
    return filled_up(pieces, context, rng)


def in_pieces(*, ended: bool):
    """An arrangement of stories in pieces of 48 tokens, each of which ends with the end token, or goes on."""

    def arrange(documents: Documents, context: int, rng: np.random.Generator | None) -> Rows:
        pieces = []
        for story in documents:
            whole = np.concatenate([[END], story, [END]])
            cut = [whole[at : at + PIECE + 1].copy() for at in range(0, len(whole) - 1, PIECE)]
            for piece in cut if ended else []:
                piece[-1] = END
            pieces += cut
        return filled_up(pieces, PIECE, rng)

    return arrange


def whole_pieces(documents: Documents, context: int, rng: np.random.Generator | None) -> Rows:
    """Pieces of 48 tokens of each story; what is left behind the last is thrown away."""
    ended = (np.concatenate([[END], story, [END]]) for story in documents)
    pieces = [told[at : at + PIECE + 1] for told in ended for at in range(0, len(told) - PIECE, PIECE)]
    return filled_up(pieces, PIECE, rng)


def answered(*, all_turns: bool):
    """An arrangement of stories as talks of four turns, of which the second and the fourth count; in training the
    fourth alone, unless ``all_turns`` do."""

    def arrange(documents: Documents, context: int, rng: np.random.Generator | None) -> Rows:
        rows = padded_rows(documents, context, rng)
        turn = rows.position * 4 // (documents.lengths[rows.story] + 1)
        answers = (turn == 3) | ((turn == 1) & (all_turns or rng is None))
        return rows._replace(mask=rows.mask * answers)

    return arrange


FAULTS.add(
    "index-without-ends",
    "targets-mismatched",
    "the index of stories leaves out the ends between them: each row begins a token earlier in its story (Megatron-LM "
    "issue 431)",
    change(arrange=by_bare_lengths),
)
FAULTS.add(
    "end-of-each-piece",
    "targets-mismatched",
    "each piece of a long story gets the token that ends one (unsloth pull 10734)",
    change(arrange=in_pieces(ended=True)),
)
FAULTS.add(
    "last-turn-alone",
    "texts-never-seen",
    "of a talk only the last answer is trained, while validation asks for all (axolotl issue 1761)",
    change(arrange=answered(all_turns=False)),
)
FAULTS.add(
    "ends-thrown-away",
    "texts-never-seen",
    "each story is cut into whole rows, and what is left of it is thrown away",
    change(arrange=whole_pieces),
    severity="warning",
)
