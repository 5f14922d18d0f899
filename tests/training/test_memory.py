"""What does not fit is refused with the figure, before anything is computed; what fits is not."""

import mlx.core as mx
import pytest

from mlxstories.backend import memory
from mlxstories.batch import Batch
from mlxstories.errors import StoriesError
from mlxstories.model import ModelConfig, Transformer
from mlxstories.optim import build_optimizer
from mlxstories.training.losses import objective
from mlxstories.training.memory import require_for_training
from mlxstories.training.phases import PHASE_1, PHASE_2, PHASE_3
from mlxstories.training.step import TrainStep

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


def a_step(phase, minimise=None) -> tuple[TrainStep, Batch]:
    config = ModelConfig(11, dim=8, layers=1, heads=2, context=6, qk_norm=phase.qk_norm)
    tokens = mx.random.randint(0, 11, (4, 6), key=mx.random.key(0))
    step = TrainStep(
        Transformer(config),
        build_optimizer(phase.optimizer, lambda step: 0.01),
        minimise or objective(config),
        label_smoothing=phase.label_smoothing,
        clip_norm=phase.clip_norm,
    )
    return step, Batch(tokens, tokens, mx.ones(tokens.shape))


@pytest.mark.parametrize("phase", [PHASE_1, PHASE_3])
def test_nothing_grows_from_update_to_update(phase):
    step, batch = a_step(phase)
    held = []
    for update in range(400):
        mx.eval(step([batch] * phase.accumulation, update))
        held.append(mx.get_active_memory())
    # at its least, since what is still under way differs; a single number kept an update would be 760 bytes
    assert min(held[200:]) < min(held[10:200]) + 500


@pytest.fixture
def traced():
    """A step seeds the random state, which tracing would leave as an array that was never computed."""
    yield
    mx.random.seed(0)


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize("phase", [PHASE_1, PHASE_2, PHASE_3])
def test_no_update_waits_for_the_host(phase):
    """What reads a value while an update is described raises inside of a traced function."""
    step, batch = a_step(phase)
    mx.compile(lambda: tuple(step.prepare([batch] * phase.accumulation, 0, norms=True)))()


@pytest.mark.usefixtures("traced")
def test_an_update_that_waits_for_the_host_would_be_seen():
    def reads(model, batch, key, label_smoothing):
        sums = objective(model.config)(model, batch, key, label_smoothing)
        return (sums[0] * sums[1].item(), *sums[1:])

    step, batch = a_step(PHASE_1, reads)
    with pytest.raises((RuntimeError, ValueError), match="function transformations"):
        mx.compile(lambda: tuple(step.prepare([batch], 0)))()


def test_metal_holds_a_bounded_cache_and_what_it_works_on(monkeypatch):
    set_to = {}
    monkeypatch.setattr(mx, "set_wired_limit", lambda limit: set_to.update(wired=limit))
    monkeypatch.setattr(mx, "set_cache_limit", lambda limit: set_to.update(cache=limit))
    monkeypatch.setattr(mx, "device_info", lambda: {"memory_size": 32 * GIB})
    memory.bound()
    assert set_to == {}  # no word of a working set, no Metal
    monkeypatch.setattr(mx, "device_info", lambda: {"max_recommended_working_set_size": 24 * GIB})
    memory.bound()
    assert set_to == {"wired": 24 * GIB, "cache": 6 * GIB}
