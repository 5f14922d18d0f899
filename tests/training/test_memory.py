"""What does not fit is refused with the figure, before anything is computed; what fits is not."""

import mlx.core as mx
import pytest

from mlxstories.backend import memory
from mlxstories.errors import StoriesError
from mlxstories.model import ModelConfig, Transformer
from mlxstories.optim import build_optimizer
from mlxstories.training.memory import require_for_training
from mlxstories.training.phases import PHASE_1

GIB = 2**30


def planned(**shape) -> tuple:
    model = Transformer(ModelConfig(100, **shape))
    optimizer = build_optimizer(PHASE_1.optimizer, lambda step: 0.1)
    optimizer.init(model.trainable_parameters())
    return model, optimizer.state


def test_the_plan_of_a_large_model_costs_nothing_and_is_refused_with_the_figure(monkeypatch):
    monkeypatch.setattr(memory, "machine_memory", lambda: 16 * GIB)
    before = mx.get_active_memory()
    model, state = planned(dim=8192, layers=40, heads=8, context=64)
    with pytest.raises(
        StoriesError, match=r"training 21,[\d,]+ parameters.* takes at least 323.8 GiB.* 16.0 GiB"
    ):
        require_for_training(model, state, 4, mx.float32)
    assert mx.get_active_memory() - before < 1 << 20


def test_what_fits_is_taken(monkeypatch):
    monkeypatch.setattr(memory, "machine_memory", lambda: GIB)
    require_for_training(*planned(dim=256, layers=4, context=256), 4, mx.float32)


def test_rows_that_no_memory_holds_are_not_continued(monkeypatch):
    monkeypatch.setattr(memory, "machine_memory", lambda: GIB)
    model, _ = planned(dim=64, layers=2, context=10_000)
    with pytest.raises(
        StoriesError, match=r"continuing 1,000 rows of up to 10,000 tokens takes at least 9\.5 GiB"
    ):
        model.new_cache(1000)
    model.new_cache(4)
