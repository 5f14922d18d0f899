"""Several prompts decoded at once."""

from __future__ import annotations

import mlx.core as mx
import pytest
from tiny import Tiny, ask


def greedy(masked: bool):
    """Decoding of one prompt, or of several at once, whose padding is left out or taken for tokens."""

    def generate(model, prompts, n):
        model.eval()
        if not isinstance(prompts[0], list):
            return generate(model, [prompts], n)[0]
        rows, width = [list(prompt) for prompt in prompts], max(map(len, prompts))
        rows = rows if masked else [[0] * (width - len(row)) + row for row in rows]
        told = [[] for _ in rows]
        for _ in range(n):
            for row, new in zip(rows, told, strict=True):
                new.append(int(mx.argmax(model(mx.array([row]))[0, -1]).item()))
                row.append(new[-1])
        return told

    return generate


@pytest.mark.parametrize(
    ("generate", "told"),
    [
        (greedy(masked=True), "passed"),
        (greedy(masked=False), "failed"),
        (lambda model, prompt, n: greedy(True)(model, [int(i) for i in prompt], n), "skipped"),
    ],
)
def test_prompts_of_unequal_length(generate, told):
    assert ask("prompts of unequal length", generate=generate, model=lambda: Tiny()).status == told
