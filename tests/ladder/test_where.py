"""Where findings about the model lie: the module in which a planted fault begins, and the line that makes it."""

from __future__ import annotations

import functools
import linecache
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

import mlxstories
from mlxstories.faults.recipe import built_in
from mlxstories.findings import ERROR, NOTE, Finding
from mlxstories.ladder import diagnose
from mlxstories.ladder.bench import Bench
from mlxstories.ladder.where import located, stopped
from mlxstories.ladder.where.calls import calls
from mlxstories.ladder.where.calls import steps as steps_of
from mlxstories.ladder.where.places import assigned_in, class_line, defined, own_file
from tests.ladder.tiny import Tiny, batches, subject

# Fault, the code and `where` of its check, the module it was planted in (None: the whole model), its line.
PLANTED = (
    ("no-causal-mask", "future-leak", "model", "blocks.0.attention", ""),
    ("mask-multiplied", "future-leak", "model", "blocks.0.attention", "self.weights(scores"),
    ("norm-over-time", "future-leak", "model", "blocks.0.mixing", "axis=(1, 2)"),
    ("centred-convolution", "future-leak", "model", "blocks.0.mixing.convolution", "self.convolution(x)"),
    ("leak-in-last-block", "future-leak", "model", "blocks.1.mixing.convolution", "self.convolution(x)"),
    ("leak-behind-zero-gate", "future-leak", "model", "blocks.0.mixing.convolution", "self.gate"),
    ("batch-mean", "batch-leak", "model", "blocks.1.mixing", "x.mean(axis=0"),
    ("attention-over-batch", "batch-leak", "model", "blocks.1.attention", ""),
    ("positions-of-rows", "batch-leak", "model", None, "mx.arange(tokens.shape[0])"),
    ("positions-from-the-end", "length-dependent", "model", None, "tokens.shape[1] - 1, -1, -1"),
    ("dropout-in-every-mode", "not-repeatable", "model", "blocks.0.mixing", "mx.random.bernoulli"),
    ("distance-rewarded", "context-cut", "model", "blocks.0.attention", ""),
    ("one-layer-without-positions", "position-blind", "model", "blocks.0.attention", ""),
    ("tokens-zeroed", "input-blind", "model", None, "mx.zeros_like(tokens)"),
    ("stream-overwritten", "input-blind", "model", None, "mx.broadcast_to(self.start"),
    ("softmax-in-model", "double-softmax", "model", None, "mx.softmax(super().head"),
    ("mask-without-diagonal", "not-finite", "model", "blocks.0.attention", "strictly"),
    ("float16-overflow", "not-finite", "model", None, "* 300"),
    ("relu-far-below-zero", "dead-parameters", "blocks.0.feed_forward_norm.weight", "blocks.0.feed_forward", ""),
    ("gradient-stopped", "dead-parameters", "blocks.0.attention.query.weight", "blocks.0", "stop_gradient"),
    ("block-never-called", "dead-parameters", "blocks.1.attention_norm.weight", "blocks.1.attention_norm", "blocks[0]"),
    ("blocks-frozen", "frozen-parameters", "blocks.0.attention.query.weight", "blocks.0.attention.query", "query ="),
    ("mask-as-parameter", "buffer-trained", "blocks.0.attention.mask", "blocks.0.attention", "self.mask ="),
    ("weights-of-unit-variance", "bad-initialization", "model", "blocks.0.feed_forward.down", "self.down ="),
)  # fmt: skip


@pytest.mark.parametrize("fault, code, where, module, text", PLANTED, ids=[row[0] for row in PLANTED])
def test_a_planted_fault_is_followed_to_its_module_and_line(fault, code, where, module, text):
    bench = Bench(built_in(fault=fault))
    found = located(bench, Finding(code, ERROR, "init", "", where=where)).where
    assert found.get("module") == module
    near = "".join(linecache.getline(found["file"], found["line"] + offset) for offset in (-1, 0, 1))
    assert text in near


def test_the_climb_gives_places_and_leaves_the_model_as_it_was():
    kept = nn.Linear.__call__
    found = diagnose(subject(model=lambda: Tiny(future=1.0)), rungs=["init"]).findings[0]
    assert found.code == "future-leak"
    line = linecache.getline(found.where["file"], found.where["line"])
    assert "weights @ x" in line
    assert nn.Linear.__call__ is kept


def test_parts_of_a_subject_lead_to_the_line_of_their_function():
    def loss(model, batch):
        return nn.losses.cross_entropy(model(batch.inputs), batch.targets, reduction="mean")

    first = loss.__code__.co_firstlineno
    for given in (loss, functools.partial(loss)):
        bench = Bench(subject(loss=given))
        where = located(bench, Finding("double-softmax", ERROR, "init", "", where="loss")).where
        assert where["file"] == __file__ and where["line"] == first and where["module"] == "loss"
    bench = Bench(subject())
    where = located(bench, Finding("constant-batches", ERROR, "data", "", where="train, batch 3")).where
    assert where["line"] == batches.__code__.co_firstlineno
    assert (
        located(bench, Finding("loss-sign", ERROR, "init", "", where="loss")).where == "loss"
    )  # there is none
    assert defined(np.zeros) is None


def test_a_model_that_does_not_bear_the_probe_keeps_its_plain_where():
    class Fussy(Tiny):
        def __call__(self, tokens):
            if tokens.shape != (4, 16):
                raise RuntimeError("4 rows of 16")
            return super().__call__(tokens)

    bench = Bench(subject(model=Fussy))
    finding = Finding("future-leak", ERROR, "init", "", where="model")
    assert located(bench, finding).where == "model"
    note = Finding("frozen-parameters", NOTE, "init", "", where="head.weight")
    assert located(bench, note) is note


def test_assignments_are_found_in_tuples_and_bases():
    class Pair(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Linear(2, 2), mx.zeros(2)

    class Child(Pair):
        pass

    first = Pair.__init__.__code__.co_firstlineno
    assert assigned_in(Child, "two").line == first + 2
    assert assigned_in(Child, "three") is None
    assert class_line(Pair).line == first - 1 and class_line(nn.Linear) is None


@pytest.mark.parametrize(
    "file, own",
    [
        (f"{Path(mlxstories.__file__).parent}/training/step.py", False),
        (f"{Path(mlxstories.__file__).parent}_setup.py", True),  # beside the package, in a checkout
        (np.__file__, False),
        (functools.__file__, False),
        (f"{Path(functools.__file__).parent}-of-mine/train.py", True),
        ("/usr/lib/python3/dist-packages/numpy/__init__.py", False),
        ("<string>", False),
    ],
)
def test_files_of_the_user_s_are_told_from_libraries_and_ours(file, own):
    assert own_file(file) is own


def test_a_class_of_a_script_is_found_without_its_module(tmp_path):
    head = "import mlx.nn as nn\n\n\nclass Model(nn.Module):\n    def __init__(self):\n"
    text = head + "        super().__init__()\n        self.a = 1\n"
    (tmp_path / "train.py").write_text(text)
    names = {"__name__": "gone"}
    exec(compile(text, str(tmp_path / "train.py"), "exec"), names)
    assert class_line(names["Model"]).line == 4
    assert assigned_in(names["Model"], "a").line == 7


class StopsTwice(Tiny):
    """A stop that cuts nothing off, and one that leaves the head alone to learn."""

    def __call__(self, tokens):
        x = self.embed(tokens)
        x = x - mx.stop_gradient(x.mean(axis=-1, keepdims=True))
        x = x + self.mix(x)
        x = mx.stop_gradient(x)  # here
        return self.head(x)


class Drops(Tiny):
    """Its mixing is called for nothing: earlier tokens reach no logit."""

    def __call__(self, tokens):
        x = self.embed(tokens)
        self.mix(x)  # here
        return self.head(x)


def test_a_result_that_is_dropped_is_found_at_its_call():
    found = located(Bench(subject(model=Drops)), Finding("input-blind", ERROR, "init", "", where="model"))
    assert "# here" in linecache.getline(found.where["file"], found.where["line"])
    assert found.where["module"] == "mix"


class LeavesOut(Tiny):
    def __call__(self, tokens):
        x = self.embed(tokens)
        return self.head(x)  # here


class Bounded(Tiny):
    def __call__(self, tokens):
        x = self.embed(tokens)
        x = x + self.mix(x)
        x = self.head(x)
        return mx.tanh(x)  # here


class Turned(Tiny):
    """What the rotation returns is dropped."""

    def __init__(self):
        super().__init__()
        self.rope = nn.RoPE(16)

    def __call__(self, tokens):
        x = self.embed(tokens)
        self.rope(x)  # here
        x = x + self.mix(x)
        return self.head(x)


class Forgets(Tiny):
    """Its mixing leads to scores that are not read."""

    def __call__(self, tokens):
        x = self.embed(tokens)
        y = self.mix(x)
        y = mx.zeros(y.shape)  # here
        return self.head(x + y)


class Masked(Tiny):
    """Attention to everything, by a mask from elsewhere."""

    def __init__(self, mask):
        super().__init__()
        self.mask = mask

    def __call__(self, tokens):
        x = self.embed(tokens)
        mask = self.mask(x.shape[1])
        scores = x @ x.swapaxes(-1, -2) + mask  # used
        x = x + self.mix(mx.softmax(scores, axis=-1) @ x)
        return self.head(x)


def hides_nothing(length):
    earlier = mx.tril(mx.ones((length, length)))
    return mx.where(earlier >= 0, 0.0, -1e9)  # mask


def biased(length):
    """No mask: a bias of many values."""
    return -mx.abs(mx.arange(length)[:, None] - mx.arange(length)[None]) * 1.0


@pytest.mark.parametrize(
    ("model", "code", "where"),
    [
        (Bounded, "bounded-logits", "model"),
        (Turned, "without-effect", "model"),
        (Forgets, "dead-parameters", "mix.weight"),
    ],
)
def test_what_is_lost_is_found_where_it_is(model, code, where):
    found = located(Bench(subject(model=model)), Finding(code, ERROR, "init", "", where=where)).where
    near = [linecache.getline(found["file"], found["line"] - back) for back in (0, 1)]  # or after it
    assert "# here" in "".join(near)


@pytest.mark.parametrize(("mask", "mark"), [(hides_nothing, "mask"), (biased, "used")])
def test_a_mask_that_hides_nothing_is_found_where_it_is_made(mask, mark):
    bench = Bench(subject(model=lambda: Masked(mask)))
    found = located(bench, Finding("future-leak", ERROR, "init", "", where="model")).where
    assert f"# {mark}" in linecache.getline(found["file"], found["line"])


class Inner(nn.Module):
    def __call__(self, x):
        return x + 1.0


class CallsAHelper(Tiny):
    """What comes after the call of a module is none of its steps."""

    def __init__(self):
        super().__init__()
        self.inner = Inner()

    def __call__(self, tokens):
        return later(self.inner(self.head(self.embed(tokens))))


def later(logits):
    more = logits + 1.0
    return more - 1.0


def test_the_steps_of_a_call_end_with_it():
    model = CallsAHelper()
    call = next(call for call in calls(model, mx.array([[1, 2]])) if call.module is model.inner)
    assert {line.function for line, _ in steps_of(model, call, 0, mx.array([[1, 2]]))} == {"__call__"}


def test_a_module_that_is_never_called_is_missing_in_what_holds_it():
    finding = Finding("dead-parameters", ERROR, "init", "", where="mix.weight")
    found = located(Bench(subject(model=LeavesOut)), finding).where
    assert "# here" in linecache.getline(found["file"], found["line"]) and found["module"] == "mix"


def evaluates(model, batches):
    nats = tokens = 0
    for batch in batches:
        logits = asked(model, batch)  # evaluate
        nats += nn.losses.cross_entropy(logits, batch.targets).sum().item()
        tokens += batch.targets.size
    return {"loss": nats / tokens}


def asked(model, batch):
    return model(batch.inputs)


def sums_wrongly(model, batches):
    nats = tokens = 0
    for batch in batches:
        logits = model(batch.inputs)
        losses = nn.losses.cross_entropy(logits, batch.targets)
        nats += losses.sum().item()
        tokens += batch.targets.size  # figures
    model.train()
    return {"loss": nats / tokens}


def test_a_wrong_figure_is_found_where_the_last_of_what_is_returned_is_summed_up():
    finding = Finding("metric-mismatch", ERROR, "trained", "", where="evaluate")
    found = located(Bench(subject(evaluate=sums_wrongly)), finding).where
    assert "# figures" in linecache.getline(found["file"], found["line"])


def delegates(model, batches):
    return sums_wrongly(model, batches)


def asks_about_targets(model, batches):
    nats = tokens = 0
    for batch in batches:
        logits = model(batch.targets)  # asked
        nats += nn.losses.cross_entropy(logits, batch.targets).sum().item()
        tokens += batch.targets.size
    noted = nats, tokens
    model.train()
    model.eval()
    return {"loss": noted[0] / noted[1]}


@pytest.mark.parametrize(("evaluate", "line"), [(delegates, "figures"), (asks_about_targets, "asked")])
def test_a_wrong_figure_is_followed_to_who_sums_it_up_or_to_what_the_model_is_asked(evaluate, line):
    finding = Finding("metric-mismatch", ERROR, "trained", "", where="evaluate")
    found = located(Bench(subject(evaluate=evaluate)), finding).where
    assert f"# {line}" in linecache.getline(found["file"], found["line"])


def test_a_function_that_fails_by_itself_is_not_run_again():
    def endless(model, optimizer, batch):
        pytest.fail("run again")

    finding = Finding("subject-error", ERROR, "minimal", "", where="train_step")
    found = located(Bench(subject(train_step=endless)), finding).where
    assert found["line"] == endless.__code__.co_firstlineno


def generates(model, prompt, count):
    told = []
    for _ in range(count):
        told.append(model(mx.array([prompt + told]))[0, -1].argmax().item())  # generate
    return told


def generates_nothing(model, prompt, count):
    told = []
    return told  # generate


def steps(model, optimizer, batch):
    loss, gradients = nn.value_and_grad(model, lambda m: asked(m, batch).mean())(model)
    optimizer.update(model, gradients)  # train_step
    mx.eval(model.parameters())
    return loss


def steps_nowhere(model, optimizer, batch):
    loss, _ = nn.value_and_grad(model, lambda m: asked(m, batch).mean())(model)
    mx.eval(loss)
    return loss  # train_step


@pytest.mark.parametrize("function", [evaluates, generates, generates_nothing, steps, steps_nowhere])
def test_a_function_is_found_where_it_does_its_work_or_ends_without(function):
    part = (
        "evaluate" if function is evaluates else "train_step" if "steps" in function.__name__ else "generate"
    )
    bench = Bench(subject(**{part: function}))
    found = located(bench, Finding("stale-computation", ERROR, "minimal", "", where=part)).where
    assert f"# {part}" in linecache.getline(found["file"], found["line"]) and found["module"] == part


@pytest.mark.parametrize("path", ["embed.weight", "mix.weight"])
def test_the_stop_that_cuts_a_parameter_off(path):
    found = located(
        Bench(subject(model=StopsTwice)), Finding("dead-parameters", ERROR, "init", "", where=path)
    )
    assert "# here" in linecache.getline(found.where["file"], found.where["line"])


def test_a_parameter_that_is_reached_is_not_stopped():
    ids = np.arange(8)[None]
    assert stopped.in_model(StopsTwice(), ids, "head.weight") is None


def dealt(seed):
    rows = np.random.default_rng(seed).integers(0, 9, (8, 17))
    for start in range(0, len(rows), 4):
        part = mx.array(rows[start : start + 4])
        yield part[:, :-1], part[:, 1:]  # here


@pytest.mark.parametrize("of", [dealt, lambda seed: dealt(seed)])
def test_batches_of_a_generator_are_made_where_it_begins_and_yields(of):
    bench = Bench(subject(train_batches=of))
    found = [
        located(bench, Finding(code, ERROR, "data", "", where="train_batches")).where["line"]
        for code in ("constant-batches", "targets-mismatched")
    ]
    assert found[0] == dealt.__code__.co_firstlineno
    assert "# here" in linecache.getline(__file__, found[1])
