"""Where decoding with a cache departs from the full forward pass, and why."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from mlxstories.ladder.bench.bench import Bench, measurement
from mlxstories.ladder.bench.generation.cached_reading import Odd, Places, read, read_in_place, whole
from mlxstories.ladder.bench.samples import sample

_PROMPT, _STEPS = 6, 4  # tokens read at once, and one by one after them


@dataclass(frozen=True)
class CachedSteps:
    """A row's tokens read as a prompt and one by one after it, whatever decoding would choose, against the full forward
    pass of the row: the largest changes of a logit, in the logits' spread.

    Attributes:
        prompt: tokens of the prompt.
        within: at the places of the prompt that were told.
        after: at the places behind it.
        alone: where the same tokens are all read one by one; None where that cannot be had.
        ahead: of the prompt's earlier places, its last token another; None where only the last place is told.
        reach: of the step behind the prompt, for each place of the prompt, its token another.
        whole_reach: of the full pass at the same place.
        again: whether the token given after the prompt is the prompt's last, and not the one that was chosen.
        odd: the first position that differs from the full pass's.
        mended: ``change``, positions taken from the full pass.
        handed: whether what the step behind the prompt is given, its cache say, is another after another prompt.
    """

    prompt: int
    within: float
    after: float
    alone: float | None
    ahead: float | None
    reach: list[float]
    whole_reach: list[float]
    again: bool
    odd: Odd | None
    mended: float
    handed: bool

    @property
    def change(self) -> float:
        """At any place."""
        return max(self.within, self.after)


@measurement
def cached_steps(bench: Bench) -> CachedSteps | None:
    """Read a row through the subject's ``generate``; None where that does not call the model with a prompt and then
    with single tokens, or no row is long enough."""
    rows = sample(bench)
    real = [row[mask > 0] for row, mask in zip(rows.inputs, rows.mask, strict=True)]
    row = next((ids[: _PROMPT + _STEPS] for ids in real if len(ids) >= _PROMPT + _STEPS), None)
    if row is None or (row < 0).any():
        return None
    model = bench.noisy(13, amount=1.5)
    others = [_another(row, place, bench.subject.vocab_size) for place in range(_PROMPT)]
    cached, *changed = (read(bench, model, ids, _PROMPT) for ids in (row, *others))
    placed, odd = read_in_place(bench, model, row, _PROMPT)
    if not (cached and all(changed) and placed):
        return None
    alone = read(bench, model, row, 1)
    full, behind = whole(bench, model, row), range(_PROMPT, len(row))
    finite = np.concatenate([values[np.isfinite(values)] for values in full.values()])
    spread = max(float(finite.std()), 1e-30) if finite.size else 1e-30

    def apart(one: Places, other: Places, places: Iterable[int] = range(len(row))) -> float:
        return _apart(one, other, places) / spread

    return CachedSteps(
        prompt=_PROMPT,
        within=apart(cached.told, full, range(_PROMPT)),
        after=apart(cached.told, full, behind),
        alone=apart(alone.told, full) if alone else None,
        ahead=apart(cached.told, changed[-1].told, range(_PROMPT - 1)) if 0 in cached.told else None,
        reach=[apart(cached.told, other.told, behind[:1]) for other in changed],
        whole_reach=[apart(full, whole(bench, model, other), behind[:1]) for other in others],
        again=cached.again,
        odd=odd,
        mended=apart(placed.told, full),
        handed=any(other.given != cached.given for other in changed),
    )


def _another(row: np.ndarray, place: int, size: int) -> np.ndarray:
    """The row with another of its tokens at that place."""
    changed = row.copy()
    changed[place] = next((token for token in row if token != row[place]), (row[place] + 1) % size)
    return changed


def _apart(one: Places, other: Places, places: Iterable[int]) -> float:
    """The largest difference of a logit at the places that both have; banned tokens are left out."""
    with np.errstate(invalid="ignore"):
        found = [np.abs(one[place] - other[place]) for place in places if place in one and place in other]
    return max((float(np.nanmax(each, initial=0.0)) for each in found), default=0.0)
