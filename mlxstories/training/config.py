"""How long a training is, and on what batches."""

from __future__ import annotations

from dataclasses import dataclass

from mlxstories.bounds import check_choice, check_number
from mlxstories.data.packing import LAYOUTS
from mlxstories.errors import StoriesError


@dataclass(frozen=True)
class TrainingConfig:
    """How long and on what batches.

    Attributes:
        epochs: times through the training stories; ignored when ``steps`` is given.
        steps: updates, or None.
        batch_size: rows of a microbatch, shared among the processes where there are several.
        layout: ``"packed"`` (whole stories side by side) or ``"padded"`` (one story a row).
        seed: of the initial weights, the order of the rows, dropout and masking.
        log_every: updates between two lines of training metrics.
        evaluations: validations in a run at the least; there is always one each epoch.
        stop_after: after so many validations in a row without a lower loss, training ends, or goes back to the best
            weights and begins the cool-down of its schedule early. None: it goes on to its last update.
        keep: newest checkpoints that are kept, besides the best.
        save_every: updates between two checkpoints; None: they are saved at validations alone.
        max_repairs: how often a run that goes wrong may be repaired; 0: it is only watched.
        dtype: of the forward and backward passes, "float32" or "bfloat16"; the weights stay float32.
    """

    epochs: int = 4
    steps: int | None = None
    batch_size: int = 4
    layout: str = "packed"
    seed: int = 0
    log_every: int = 10
    evaluations: int = 10
    stop_after: int | None = None
    keep: int = 2
    save_every: int | None = None
    max_repairs: int = 0
    dtype: str = "float32"

    def __post_init__(self):
        for name in (
            "epochs",
            "steps",
            "batch_size",
            "log_every",
            "evaluations",
            "stop_after",
            "keep",
            "save_every",
        ):
            value = getattr(self, name)
            if value is not None:
                check_number(name, value, at_least=1, whole=True)
        check_number("max_repairs", self.max_repairs, at_least=0, whole=True)
        check_choice("layout", self.layout, LAYOUTS)
        check_choice("dtype", self.dtype, ("float32", "bfloat16"))
        check_number("seed", self.seed, at_least=0, at_most=2**31 - 1, whole=True)

    def share(self, processes: int) -> int:
        """Rows of a microbatch that each of so many processes reads.

        Raises:
            StoriesError: they cannot have equal shares.
        """
        if self.batch_size % processes:
            raise StoriesError(
                f"a batch of {self.batch_size} rows cannot be divided among {processes} processes: "
                f"take a --batch-size that is a multiple of {processes}, or another number of processes."
            )
        return self.batch_size // processes


def require_alone(processes: int) -> None:
    """Raises StoriesError if several processes train: only one can try recipes out and return."""
    if processes > 1:
        raise StoriesError(
            f"a run with --repair trains in one process, not in {processes}: leave out mlx.launch, or, in a new run, "
            "--repair."
        )
