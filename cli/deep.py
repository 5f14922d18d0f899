"""The deep part of `mlxstories debug`: a line that says which training is running."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlxstories.cli import supervision

if TYPE_CHECKING:
    from mlxstories.cli.ladder_screen import LadderScreen
    from mlxstories.ladder.diagnosis import Diagnosis
    from mlxstories.ladder.subject import Subject

_LEAST = 1.0  # seconds, for what is known of an exchange without time
_RESERVE = 0.1  # of the time limit, left for the training that is running and the report


def after_climb(
    diagnosis: Diagnosis,
    subject: Subject,
    ladder: LadderScreen,
    deep: bool,
    seed: int,
    timeout: float,
    offered: bool,
) -> tuple[Diagnosis, str]:
    """The diagnosis, with `--deep` deepened; and, where no cause was found without it, a line that offers it."""
    with supervision.limited(max(timeout - diagnosis.seconds, _LEAST)):
        if deep:
            return _deepened(diagnosis, subject, ladder, seed, timeout), ""
        return diagnosis, _offer(subject, seed) if offered and not _explained(diagnosis) else ""


def _explained(diagnosis: Diagnosis) -> bool:
    """Whether an error says what is wrong, and not only what comes of it."""
    from mlxstories.findings import ERROR, cause_of

    return any(f.severity == ERROR and cause_of(f.code).stage != "result" for f in diagnosis.findings)


def _deepened(
    diagnosis: Diagnosis,
    subject: Subject,
    ladder: LadderScreen,
    seed: int,
    timeout: float,
) -> Diagnosis:
    """The diagnosis with what the exchange of the subject's parts adds, inside the time limit of the command."""
    from mlxstories.ladder import exchange

    left = (1 - _RESERVE) * timeout - diagnosis.seconds
    with ladder.console.status("the parts exchanged") as status:
        deep = exchange.deepened(
            diagnosis,
            subject,
            seed=seed,
            seconds=max(left, 0),
            tell=lambda name: status.update(f"training: {name}  (Ctrl-C: what is known so far)"),
        )
    ladder.event("done", deep.rungs[-1])
    return deep


def _offer(subject: Subject, seed: int) -> str:
    """A line that says what `--deep` does and how long it takes; none where that cannot be told."""
    from mlxstories.ladder.bench import SubjectFault
    from mlxstories.ladder.exchange import MOST, estimate
    from mlxstories.ladder.time_limit import TimeLimitError

    try:
        seconds = estimate(subject, seed)
    except (SubjectFault, TimeLimitError):
        return ""
    return (
        f"If it still learns badly: --deep trains with model, loss and step exchanged for plain ones, about "
        f"{seconds:.0f} s, up to {MOST * seconds:.0f} s where one of them is behind."
    )
