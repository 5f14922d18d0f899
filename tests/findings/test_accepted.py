"""Errors that are known and may stay."""

from __future__ import annotations

import pytest

from mlxstories.errors import StoriesError
from mlxstories.findings import ERROR, NOTE, WARNING, Finding, acceptable, accepted


def test_an_accepted_error_is_a_warning_and_says_so():
    leak = Finding("future-leak", ERROR, "init", "it sees ahead", {"reader": 3})
    known = accepted(leak, {"future-leak"})
    assert (known.severity, known.evidence) == (WARNING, {"reader": 3, "accepted": True})
    assert accepted(leak, {"tie-broken"}) == leak
    note = Finding("future-leak", NOTE, "init", "")
    assert accepted(note, {"future-leak"}) == note


@pytest.mark.parametrize(
    "code, told",
    [
        ("future-leek", "it is no code of the catalogue .* Did you mean 'future-leak'"),
        ("subject-error", "cannot accept subject-error: it has to be fixed"),
        ("token-out-of-range", "cannot accept token-out-of-range: it has to be fixed"),
    ],
)
def test_what_is_unknown_or_ends_the_climb_is_refused(code, told):
    with pytest.raises(StoriesError, match=told):
        acceptable(["tie-broken", code])
