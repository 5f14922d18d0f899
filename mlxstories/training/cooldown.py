"""The cool-down that begins early, when validation has stopped improving at the full learning rate."""

from __future__ import annotations

from dataclasses import dataclass

from mlxstories.optim.schedules import ScheduleConfig


@dataclass(frozen=True)
class Cooldown:
    """The rest of a run whose schedule was cut short: it goes on as if the stable phase had ended at the best weights.

    Attributes:
        begins: updates done when it began.
        weights_of: updates that are in the weights it began with, the best until then.
        updates: its length.
    """

    begins: int
    weights_of: int
    updates: int

    @property
    def ends(self) -> int:
        """Updates of the whole run, including those that are not in its weights."""
        return self.begins + self.updates

    @property
    def scheduled(self) -> int:
        """Updates in the final weights, which is the length of the schedule."""
        return self.weights_of + self.updates


def early_cooldown(schedule: ScheduleConfig, total: int, step: int, best: int) -> Cooldown | None:
    """The cool-down of a run planned with ``total`` updates that has made ``step`` and was best after ``best``.

    Returns:
        None where the schedule has no cool-down, where the best weights had not the full rate yet or are of the
        cool-down itself, and where the run would get longer than it was planned.
    """
    stable = total - schedule.cooldown_steps(total) if schedule.name == "wsd" else 0
    if not max(1, schedule.warmup_steps(total)) <= best < stable:
        return None
    cooldown = Cooldown(step, best, schedule.total_steps(stable=best) - best)
    return cooldown if cooldown.ends <= total else None
