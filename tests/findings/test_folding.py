"""Findings that are consequences of others, and the order of the causes."""

from __future__ import annotations

from mlxstories.findings import CATALOGUE, CAUSES, Finding, fold


def test_consequences_are_folded_under_their_cause():
    def finding(code, severity="error"):
        return Finding(code, severity, "data", code)

    kept, folded = fold(
        [
            finding("too-good-to-be-true"),
            finding("future-leak"),
            finding("padding-in-accuracy"),
            finding("overfitting", "note"),
        ]
    )
    assert [f.code for f in kept] == ["future-leak", "padding-in-accuracy", "overfitting"]
    assert [f.code for f in folded] == ["too-good-to-be-true"]
    assert kept[0].evidence["consequences"] == ["too-good-to-be-true"]
    # each may bring the other about: the one that was there first did
    for first, then in (("wrong-loss", "not-finite"), ("not-finite", "wrong-loss")):
        kept, folded = fold([finding(first), finding(then)])
        assert ([f.code for f in kept], [f.code for f in folded]) == ([first], [then])
        assert kept[0].evidence["consequences"] == [then]
    assert all(cause.brings_about <= set(CATALOGUE) for cause in CAUSES)
    assert sorted(CAUSES, key=lambda cause: cause.priority) == list(CAUSES)


def test_what_was_found_before_the_subject_failed_does_not_come_of_it():
    """In whatever order they stand: folded once they are sorted, which those of a script are again."""
    codes = (("texts-never-seen", "warning"), ("subject-error", "error"), ("cannot-overfit", "error"))
    found = [Finding(code, severity, "data", code) for code, severity in codes]
    kept, folded = fold(found)
    assert not folded and [f.code for f in kept] == ["subject-error", "cannot-overfit", "texts-never-seen"]
    assert fold(kept) == (kept, [])


def test_what_is_found_twice_is_no_consequence_of_itself():
    twice = [Finding("no-update", "error", "minimal", "m", where=where) for where in ("step", "train_step")]
    kept, folded = fold(twice)
    assert len(kept) == len(folded) == 1 and "consequences" not in kept[0].evidence
