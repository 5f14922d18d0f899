"""One in fifty of the hostile inputs thought up by hand; `benchmarks/by_hand.py` runs them all."""

import by_hand


def test_hostile_inputs_are_taken_or_refused_in_one_line(tmp_path):
    found = list(by_hand.outcomes(tmp_path, lambda number, _: number % 50 == 7))
    assert [(case.words, wrong) for case, wrong in found if wrong] == []
    assert len(found) > 20 and len({case.kind for case, _ in found}) > 8
