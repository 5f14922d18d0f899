"""Greedy decoding: whether it tells the likeliest tokens, and whether it tells at all."""

from __future__ import annotations

import mlx.core as mx
import pytest
from plain import Net, V, bench
from tiny import ask, judged

from mlxstories.ladder.bench.generation.decoding import Continuation, Decoding, decoding


def nothing(model, prompt, n):
    return []


@pytest.mark.parametrize(
    ("behind", "repeats", "found"),
    [
        ([0.0, 0.0, 5e-4], True, []),
        ([0.0, 0.5, 0.0], True, ["cache-mismatch"]),
        ([0.5, 0.0, 0.0], True, ["generation-mismatch"]),
        ([0.0, 0.0, 0.0], False, ["generation-mismatch"]),
        ([0.0, float("nan"), 0.0], True, ["cache-mismatch"]),
    ],
)
def test_tokens_that_are_not_the_argmax(behind, repeats, found):
    on = bench(generate=nothing)
    on.taken[decoding] = Decoding([Continuation("untrained", [1, 2], [3, 4, 5], behind)], repeats)
    verdict = ask("generation is the argmax", on)
    assert [draft.code for draft in verdict.drafts] == found
    assert ask("greedy text does not loop", on).status == "passed"


def test_decoding_that_tells_nothing_is_an_error_unless_all_choices_are_one_that_may_end_a_text():
    assert judged("generation is the argmax", bench(generate=nothing)) == [("generation-mismatch", "error")]

    class Ended(Net):
        def __call__(self, tokens):
            return super().__call__(tokens) + 1e3 * (mx.arange(V) == 2)

    verdict = ask("generation is the argmax", bench(model=Ended, generate=nothing))
    assert verdict.status == "skipped" and not verdict.drafts


def test_one_token_for_ever_is_noted():
    on = bench(generate=nothing)
    on.taken[decoding] = Decoding([Continuation("untrained", [1], [2] + 8 * [3], 9 * [0.0])], True)
    assert judged("greedy text does not loop", on) == [("repetition-loop", "note")]
