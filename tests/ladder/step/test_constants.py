"""The optimiser's constants."""

from __future__ import annotations

import pytest
from plain import given

from mlxstories.ladder.bench.step.constants import Constants, constants, gradient_entry


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"beta1": 0.99, "beta2": 0.9999}, None),
        ({"beta1": 0.999, "beta2": 0.9999}, "beta1 is 0.999"),
        ({"beta1": 0.999, "beta2": 0.9}, "in the wrong order"),
        ({"momentum": 0.9975}, None),
        ({"momentum": 0.999}, "momentum is 0.999"),
        ({"eps": 0.29}, None),
        ({"eps": 0.31}, "epsilon, 0.31, is 31 times"),
        ({"weight_decay": -0.1}, "weights grow"),
    ],
)
def test_constants_outside_of_where_optimisers_work(fields, told):
    none = dict.fromkeys(("beta1", "beta2", "eps", "momentum", "weight_decay"))
    taken = {constants: (Constants("Some", **(none | fields)),), gradient_entry: 0.01}
    verdict = given("the optimiser's constants", taken)
    assert [draft.code for draft in verdict.drafts] == (["extreme-constants"] if told else [])
    assert (told or "") in "".join(draft.message for draft in verdict.drafts)
