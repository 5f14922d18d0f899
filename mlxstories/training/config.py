"""How long a training is, and on what batches."""

from __future__ import annotations

from dataclasses import dataclass

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
        keep: newest checkpoints that are kept, besides the best.
        every: updates between two checkpoints; None: they are saved at validations alone.
        max_repairs: how often a run that goes wrong is repaired; 0: it is only watched.
        dtype: of the forward and backward passes, "float32" or "bfloat16"; the weights stay float32.
    """

    epochs: int = 4
    steps: int | None = None
    batch_size: int = 4
    layout: str = "packed"
    seed: int = 0
    log_every: int = 10
    evaluations: int = 10
    keep: int = 2
    every: int | None = None
    max_repairs: int = 0
    dtype: str = "float32"

    def __post_init__(self):
        for name in ("epochs", "steps", "batch_size", "log_every", "evaluations", "keep", "every"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise StoriesError(f"{name} must be at least 1, not {value}.")
        if self.max_repairs < 0:
            raise StoriesError(f"max_repairs must be at least 0, not {self.max_repairs}.")
        if self.layout not in ("packed", "padded"):
            raise StoriesError(f"layout must be packed or padded, not {self.layout!r}.")
        if self.dtype not in ("float32", "bfloat16"):
            raise StoriesError(f"dtype must be float32 or bfloat16, not {self.dtype!r}.")
        if not 0 <= self.seed < 2**31:
            raise StoriesError(f"seed must lie between 0 and {2**31 - 1}, not {self.seed}.")

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
