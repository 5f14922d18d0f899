"""The subject's validation: asked twice, with other weights, with known logits, and for other figures than the loss."""

from __future__ import annotations

import itertools
import math
from types import SimpleNamespace

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
import pytest
import tiny
from plain import D, V, batches, bench
from tiny import ask, judged

from mlxstories.batch import Batch
from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.batches import read_batch
from mlxstories.ladder.bench.evaluation.asked_model import swapped
from mlxstories.ladder.bench.evaluation.evaluation import Reported, Twice, evaluated_twice, oracle_reported
from mlxstories.ladder.bench.training.memorising import memorising
from mlxstories.ladder.limits import Gauges
from mlxstories.ladder.registry import CHECKS


def test_two_evaluations_that_differ_are_not_compared():
    on = bench(evaluate=lambda model, batches: {}, val_batches=lambda: batches(99))
    rows = read_batch((np.zeros((1, 2), int), np.zeros((1, 2), int)))
    first = Reported({"loss": 2.0, "accuracy": 0.5}, [np.zeros((1, 2, V))], [rows])
    on.taken |= {oracle_reported: None, evaluated_twice: Twice(first, {"loss": 2.1, "accuracy": 0.5})}
    assert ask("validation agrees with ours", on).status == "skipped"
    assert judged("validation is repeatable", on) == [("dropout-in-evaluation", "error")]


def long_rows():
    ids = mx.zeros((4, 512), mx.int32)
    return [Batch(ids, ids, mx.ones(ids.shape))]


def test_misses_that_are_counted_as_hits_are_no_average_of_known_logits():
    def asks(model, batches):
        return {"batches": len([model(batch.inputs) for batch in batches])}

    averages = oracle_reported(bench(evaluate=asks, val_batches=long_rows)).averages.values()
    pairs = itertools.product((average.accuracy for average in averages), repeat=2)
    assert min(abs(1 - one - other) for one, other in pairs) > 0.05


class Logarithms(nn.Module):
    """A model that ends with a softmax and its logarithm, or without."""

    def __init__(self, ends=True):
        super().__init__()
        self.model, self.ends = tiny.Tiny(), ends

    def __call__(self, x):
        logits = self.model(x)
        return nn.log_softmax(logits) if self.ends else logits


@pytest.mark.parametrize("ends", [True, False])
def test_validation_that_takes_logarithms_gets_them_where_the_model_tells_them(ends):
    def of_logarithms(model, given):
        told = [(model(b.inputs), b.targets, b.mask) for b in given]
        nats = [-(mx.take_along_axis(logs, y[..., None], -1)[..., 0] * m).sum() for logs, y, m in told]
        return {"loss": sum(nats).item() / sum(m.sum().item() for _, _, m in told)}

    on = Bench(tiny.subject(model=lambda: Logarithms(ends), evaluate=of_logarithms))
    assert (ask("validation agrees with ours", on).status == "passed") == ends


class Counting:
    def __init__(self, reset):
        self.reset, self.losses = reset, []

    def __call__(self, model, given):
        model.eval()
        losses = [nn.losses.cross_entropy(model(b.inputs), b.targets).mean().item() for b in given]
        self.losses = losses if self.reset else self.losses + losses
        model.train()
        return {"loss": sum(self.losses) / len(self.losses)}


@pytest.mark.parametrize("reset", [True, False])
def test_validation_that_remembers_is_no_dropout(reset):
    bench = Bench(tiny.subject(evaluate=Counting(reset), val_batches=lambda: tiny.batches(9, count=2)))
    assert judged("validation is repeatable", bench) == ([] if reset else [("metric-mismatch", "error")])


class Untied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Embedding(V, D), nn.Linear(D, V, bias=False)

    def __call__(self, tokens):
        return self.head(self.embed(tokens))


def evaluate(model, given):
    model.eval()
    losses = [float(nn.losses.cross_entropy(model(b[0]), b[1]).mean()) for b in given]
    return {"loss": sum(losses) / len(losses)}


def with_another_head(model, given):
    own, model.head.weight = model.head.weight, model.embed.weight
    result = evaluate(model, given)
    model.head.weight = own
    return result


def averaged(model, given):
    """All weights replaced, as by averages that began with another model."""
    own = model.parameters()
    model.update(Untied().parameters())
    result = evaluate(model, given)
    model.update(own)
    return result


@pytest.mark.parametrize(("how", "names"), [(with_another_head, 1), (averaged, 2), (evaluate, 0)])
def test_validation_that_exchanges_some_weights_does_not_ask_the_model_that_is_trained(how, names):
    asked = bench(model=Untied, evaluate=how, val_batches=lambda: batches(99))
    found = swapped(asked)
    assert (len(found.names), found.count) == (names, 2)
    assert (found.change > 0.5) == (names > 0)
    checked = CHECKS["validation asks the model that is trained"]
    drafts = checked.ask(asked, Gauges(checked.limits)).drafts
    assert [draft.evidence["exchanged"] for draft in drafts] == [["head.weight"]] * (names == 1)


def one_step(model, given):
    loss = nn.value_and_grad(model, lambda b: nn.losses.cross_entropy(model(b[0]), b[1]).mean())
    for batch in given:
        optim.SGD(0.5).update(model, loss(batch)[1])


def learning_behind(model, given):
    """Steps on what has been scored, as a text that is adapted to; the weights are put back."""
    own, rows = model.parameters(), list(given)
    told = evaluate(model, rows)
    one_step(model, rows)
    model(rows[0][0])
    model.update(own)
    return told


def learning_first(model, given):
    own, rows = model.parameters(), list(given)
    one_step(model, rows)
    told = evaluate(model, rows)
    model.update(own)
    return told


@pytest.mark.parametrize(
    ("how", "wanted"),
    [
        (learning_first, [("metric-mismatch", "error")]),
        (learning_behind, []),
        (averaged, []),
        (evaluate, []),
    ],
)
def test_validation_that_learns_what_it_scores(how, wanted):
    asked = bench(model=Untied, evaluate=how, val_batches=lambda: batches(99))
    assert judged("validation does not learn what it scores", asked) == wanted


LETTERS = SimpleNamespace(encode=lambda text: [], decode=lambda ids: "ab" * len(ids))


@pytest.mark.parametrize(
    ("name", "per", "told"),
    [
        ("bits_per_byte", math.log(2) * 2, ""),
        ("bpb", math.log(2), "bits per token"),
        ("val_bpc", 2, "nats per character"),
        ("bits", 1, ""),
    ],
)
def test_bits_per_byte_go_with_the_loss(name, per, told):
    def evaluate(model, given):
        model.eval()
        nats = [nn.losses.cross_entropy(model(b.inputs), b.targets).mean().item() for b in given]
        loss = sum(nats) / len(nats)
        return {"loss": loss, name: loss / per}

    setup = tiny.subject(evaluate=evaluate, val_batches=lambda: tiny.batches(7), tokenizer=LETTERS)
    found = ask("bits per byte go with the loss", Bench(setup))
    assert [draft.code for draft in found.drafts] == (["metric-mismatch"] if told else [])
    severity = "error" if told.startswith("nats") else "warning"  # bits of another unit may be meant
    assert all(told in draft.message and draft.severity == severity for draft in found.drafts)


@pytest.mark.parametrize(("twice", "wanted"), [(True, [("metric-mismatch", "error")]), (False, [])])
def test_bits_per_byte_of_a_text_whose_spaces_count_twice(twice, wanted):
    def evaluate(model, given):
        model.eval()
        rows = list(given)
        loss = sum(nn.losses.cross_entropy(model(b.inputs), b.targets).mean().item() for b in rows) / len(
            rows
        )
        spaces = sum((b.targets % 5 == 0).mean().item() for b in rows) / len(rows)
        return {"loss": loss, "bits_per_byte": loss / math.log(2) / (1 + spaces * twice)}

    words = SimpleNamespace(
        encode=lambda text: [], decode=lambda ids: "".join("x" if i % 5 else " " for i in ids)
    )
    setup = tiny.subject(evaluate=evaluate, val_batches=lambda: tiny.batches(7), tokenizer=words)
    assert judged("bits per byte go with the loss", Bench(setup)) == wanted


def scored(model, rows):
    nats = count = 0.0
    for x, y, mask in rows:
        nats += (nn.losses.cross_entropy(model(x), y) * mask).sum().item()
        count += mask.sum().item()
    return nats / count


@pytest.mark.parametrize(
    ("perplexity", "said"),
    [
        (math.exp, []),
        (lambda loss: 2.0**loss, [("metric-mismatch", "error")]),
        (lambda loss: 1.1 * math.exp(loss), [("metric-mismatch", "warning")]),
    ],
)
def test_perplexity_of_base_two_is_told(perplexity, said):
    def evaluate(model, rows):
        loss = scored(model, rows)
        return {"loss": loss, "perplexity": perplexity(loss)}

    bench = Bench(tiny.subject(evaluate=evaluate, val_batches=lambda: tiny.batches(7)))
    with bench.protected():
        memorising(bench)
    assert judged("other figures of validation", bench) == said


@pytest.mark.parametrize("of_tokens", [False, True])
def test_a_mean_of_the_tokens_perplexities_is_an_error(of_tokens):
    def figures(model, given):
        model.eval()
        nats = mx.concatenate([nn.losses.cross_entropy(model(b[0]), b[1]).reshape(-1) for b in given])
        mean = nats.mean()
        return {
            "loss": mean.item(),
            "perplexity": (mx.exp(nats).mean() if of_tokens else mx.exp(mean)).item(),
        }

    asked = CHECKS["other figures of validation"]
    drafts = asked.ask(bench(evaluate=figures, val_batches=lambda: batches(99)), Gauges(asked.limits)).drafts
    assert [(draft.code, draft.severity) for draft in drafts] == [("metric-mismatch", "error")] * of_tokens
