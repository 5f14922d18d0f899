"""What an exception of the subject's own code becomes: a finding."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from mlxstories.errors import shortened
from mlxstories.ladder.subject import blame, describe_error
from mlxstories.ladder.time_limit import TimeLimitError
from mlxstories.ladder.verdict import OUT_OF_TIME, Draft, error

_PART_OF = {
    "model": "model",
    "the gradient of model": "model",
    "loss": "loss",
    "the gradient of the loss": "loss",
    "optimizer": "step",
    "train_step": "step",
    "evaluate": "evaluation",
    "generate": "generation",
}  # the part of the setup that a call's exception belongs to; any other belongs to the data


class SubjectFault(Exception):
    """The subject's own code failed; carries the finding."""

    def __init__(self, draft: Draft):
        super().__init__(draft.message)
        self.draft = draft


@contextmanager
def calling(what: str) -> Iterator[None]:
    """Turn an exception of the subject's code into a ``SubjectFault``."""
    try:
        yield
    except (SubjectFault, KeyboardInterrupt):
        raise
    except TimeLimitError as up:
        raise out_of_time(up, what) from up
    except BaseException as raised:
        where = blame(raised) or what
        on = "" if what.endswith("()") else " on one batch"
        raise fault(
            f"{what} raised {describe_error(raised)}",
            f"call {what}{on} by hand and fix what it raises",
            where,
            exception=type(raised).__name__,
            part=_PART_OF.get(what.partition("(")[0], "data"),
        ) from raised


def fault(message: str, fix: str, where: str | None = None, **evidence) -> SubjectFault:
    """A finding that ends the climb: the subject cannot be used as it is."""
    return SubjectFault(error("subject-error", message, fix=fix, where=where, **evidence))


def out_of_time(up: TimeLimitError, what: str = "") -> SubjectFault:
    """The finding for a call during which the time limit ran out: it may hang, or only be slow."""
    return fault(
        f"time ran out: the climb was {up}{f', and {what} was under way' if what else ''}",
        "raise --timeout (a busy machine needs more), or make steps and batches smaller",
        blame(up) or what or None,
        ended=OUT_OF_TIME,
    )


def kept_at_a_call(names: list[str]) -> SubjectFault:
    """The finding for a model that, when called, adds arrays to its parameters: no optimiser knows of them."""
    return fault(
        f"a call of the model puts {shortened(names)} among its parameters, as "
        "MLX does with every array that is an attribute: an optimiser that has begun knows nothing of it, and its "
        "update raises KeyError",
        "keep it under a name that begins with an underscore, or make it in __init__",
        names[0],
        part="model",
        kept=len(names),
    )
