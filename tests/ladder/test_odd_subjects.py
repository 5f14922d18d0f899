"""Forms in which users hand over what is sound."""

from __future__ import annotations

import itertools

import mlx.core as mx
import numpy as np
import pytest
from tiny import Tiny, batches, subject

from mlxstories.batch import Batch
from mlxstories.errors import StoriesError
from mlxstories.ladder import diagnose
from mlxstories.ladder.bench import Bench, SubjectFault
from mlxstories.ladder.bench.arrays import masked_mean, token_losses
from mlxstories.ladder.bench.batches import read_batch
from mlxstories.ladder.bench.data.id_width import narrow_ids
from mlxstories.ladder.bench.data.verbatim import verbatim
from mlxstories.ladder.bench.data.windows import window_overlap
from mlxstories.ladder.bench.evaluation.asked_model import swapped
from mlxstories.ladder.bench.evaluation.calls import evaluation_batches
from mlxstories.ladder.bench.evaluation.evaluation import figures_of, oracle_reported, own_figures
from mlxstories.ladder.bench.generation.decoding import Continuation, continuations, decoding
from mlxstories.ladder.bench.loss.objective import loss_formula
from mlxstories.ladder.bench.loss.pairing import pairing
from mlxstories.ladder.registry import CHECKS


def found(rungs: tuple[str, ...], **fields) -> list[str]:
    return [f"{f.code}: {f.message}" for f in diagnose(subject(**fields), rungs=rungs).findings]


def test_none_in_the_place_of_a_mask_is_no_mask():
    def tuples(seed):
        return ((inputs, targets, None) for inputs, targets, _ in batches(seed))

    def dicts(seed):
        return ({"inputs": b.inputs, "targets": b.targets, "mask": None} for b in batches(seed))

    for train_batches in (tuples, dicts):
        masks = []

        def loss(model, batch, masks=masks):
            inputs, targets, mask = batch.values() if isinstance(batch, dict) else batch
            masks.append(mask)
            logits = model(inputs)
            return mx.mean(
                mx.logsumexp(logits, axis=-1) - mx.take_along_axis(logits, targets[..., None], -1)[..., 0]
            )

        assert found(("data", "init"), train_batches=train_batches, loss=loss) == []
        assert masks and all(mask is None for mask in masks)


class Letters:
    """A tokenizer of the letters a to m."""

    def encode(self, text):
        return [ord(letter) - ord("a") for letter in text]

    def decode(self, ids):
        return "".join(chr(ord("a") + i) for i in ids)


def told(rows) -> list[str]:
    return [Letters().decode(row) for batch in rows for row in batch.inputs.tolist()]


def wide(seed, count=40):
    """Rows long enough for stretches of letters, of pieces of those of `tiny`."""
    rows = [np.concatenate([np.array(b.inputs) for b in batches(seed + i)], axis=1) for i in range(count)]
    return [Batch(mx.array(r[:, :-1]), mx.array(r[:, 1:]), mx.ones((len(r), r.shape[1] - 1))) for r in rows]


def test_texts_may_be_an_array():
    texts = np.array(told(batches(0)))
    assert narrow_ids(Bench(subject(vocab_size=300, tokenizer=Letters(), train_texts=texts))).beyond == 0


def test_texts_without_spaces_hold_no_phrase_to_compare():
    train, val = wide(0), wide(100, 10)
    diagnosis = diagnose(
        subject(
            tokenizer=Letters(),
            train_batches=lambda seed: train,
            val_batches=lambda: val,
            train_texts=told(train),
            val_texts=told(val),
        ),
        rungs=("data",),
    )
    lines = {line.name: line.detail for line in diagnosis.rungs[0].checks}
    assert lines["validation is prepared like training"] == "validation cannot be told by its words"


def test_a_loss_may_return_what_it_counted_beside():
    def loss(model, batch):
        return masked_mean(model, batch), batch.mask.sum()

    assert found(("data", "init"), loss=loss) == []
    assert loss_formula(Bench(subject(loss=loss))).reduction == "mean"


class ByName(Tiny):
    def __call__(self, input_ids):
        return super().__call__(input_ids)


class Named:
    """A model that is called with its tokens by name."""

    def __init__(self, model):
        self.model = model

    def __call__(self, tokens):
        return self.model(input_ids=tokens)


def evaluate(model, batches):
    model.eval()
    nats = hits = count = 0.0
    for batch in batches:
        logits = Named(model)(batch.inputs)
        losses, right = token_losses(logits, batch.targets)
        nats, hits = nats + (losses * batch.mask).sum().item(), hits + (right * batch.mask).sum().item()
        count += batch.mask.sum().item()
    return {"loss": nats / count, "accuracy": hits / count}


def generate(model, prompt, count):
    model.eval()
    ids = list(prompt)
    for _ in range(count):
        ids.append(Named(model)(mx.array([ids]))[0, -1].argmax().item())
    return ids[len(prompt) :]


def test_a_model_may_be_called_with_its_tokens_by_name():
    asked = {"evaluate": evaluate, "generate": generate, "val_batches": lambda: batches(99)}
    bench = Bench(subject(model=ByName, **asked))
    own = own_figures(bench)
    assert own.values["loss"] == pytest.approx(own.mean, rel=1e-4)
    assert swapped(bench).change == 0
    assert decoding(bench).edge.told == 8
    assert oracle_reported(bench) is not None


def test_a_loss_may_call_its_model_with_tokens_by_name():
    def loss(model, batch):
        return masked_mean(Named(model), batch)

    bench = Bench(subject(model=ByName, loss=loss))
    assert pairing(bench).own == 1
    assert loss_formula(bench).residual < 1e-5


def test_evaluate_may_return_more_than_numbers():
    def more(model, batches):
        return {**evaluate(model, batches), "sample": "once upon", "by kind": {"free": 1.0}, "best": None}

    own = figures_of(Bench(subject(evaluate=more, model=ByName, val_batches=lambda: batches(99))), ByName())
    assert own.values.keys() == {"loss", "accuracy"}


def test_a_loss_of_validation_that_is_no_number_is_called_so():
    def none(model, batches):
        return {"loss": None}

    with pytest.raises(SubjectFault, match="evaluate returned NoneType as loss, not a number"):
        figures_of(Bench(subject(evaluate=none, val_batches=lambda: batches(99))), Tiny())


def continued(returned) -> list[Continuation]:
    """What the ladder reads of a ``generate`` that returns its ids in another way."""

    def other(model, prompt, count):
        return returned(list(prompt), generate(model, prompt, count))

    bench = Bench(subject(model=ByName, generate=other))
    return continuations(bench, "noisy", bench.noisy(13))


@pytest.mark.parametrize(
    "returned",
    [
        lambda prompt, ids: iter(ids),
        lambda prompt, ids: mx.array(ids),
        lambda prompt, ids: np.array([ids]),
        lambda prompt, ids: mx.array([prompt + ids]),
        lambda prompt, ids: prompt + ids[:2],
    ],
    ids=["generator", "array", "row", "row with the prompt", "ended early, with the prompt"],
)
def test_generate_may_return_its_ids_in_another_form(returned):
    found = continued(returned)
    assert found and all(behind == 0 for one in found for behind in one.behind)


@pytest.mark.parametrize(("returned", "kind"), [("abc", "text"), (None, "NoneType"), ([None], "list")])
def test_what_generate_returned_that_is_no_list_of_ids_is_named(returned, kind):
    with pytest.raises(SubjectFault, match=f"generate returned {kind}, not a list of ids"):
        continued(lambda prompt, ids: returned)


def test_a_generator_that_raises_is_the_one_that_does():
    def broken(prompt, ids):
        yield ids[0]
        raise ValueError("no more")

    with pytest.raises(SubjectFault, match="generate raised ValueError: no more"):
        continued(broken)


def test_padded_rows_may_be_of_one_token():
    def pairs(seed):
        for inputs, targets, mask in batches(seed):
            real = mask[:, :1] * (mx.arange(len(inputs)) < 3)[:, None]
            yield Batch(inputs[:, :1], targets[:, :1], real)

    bench = Bench(subject(train_batches=pairs))
    assert all((batch.mask == 1).all() for batch in evaluation_batches(bench))


def test_batches_of_padding_alone_count_for_nothing():
    def masked(which):
        return lambda: [b._replace(mask=b.mask * (i not in which)) for i, b in enumerate(batches(99))]

    def own(which):
        return own_figures(Bench(subject(model=ByName, evaluate=evaluate, val_batches=masked(which))))

    some = own({0, 5})
    assert len(some.batches) == 6
    assert some.values["loss"] == pytest.approx(some.mean, rel=1e-4)
    assert own(range(8)) is None
    nothing = subject(
        model=ByName,
        val_batches=masked(range(8)),
        evaluate=lambda model, given: {"bits_per_byte": evaluate(model, given)["loss"]},
        tokenizer=Letters(),
    )
    ask = CHECKS["bits per byte go with the loss"]
    assert ask.ask(Bench(nothing), ask.gauges()).detail == "nothing counts in any batch of validation"


def test_one_short_batch_hides_no_overlap():
    seen = [read_batch(batch) for batch in wide(0)]
    assert window_overlap(seen, seen[:4])[0] == 1
    assert window_overlap([*seen, seen[0].cut(5)], [*seen[:4], seen[0].cut(5)])[0] == 1
    assert window_overlap(seen, [seen[0].cut(5)]) == (0, 0)


def test_labels_that_are_shifted_by_loss_and_validation_are_not_padded():
    def copied(seed=99):
        return ((batch.inputs, batch.inputs) for batch in batches(seed))

    def shifted(model, batch):
        tokens, labels = batch
        return token_losses(model(tokens)[:, :-1], labels[:, 1:])[0]

    def loss(model, batch):
        return shifted(model, batch).mean()

    def validate(model, given):
        return {"loss": mx.concatenate([shifted(model, batch).flatten() for batch in given]).mean()}

    bench = Bench(subject(train_batches=copied, val_batches=copied, loss=loss, evaluate=validate))
    ask = CHECKS["validation agrees with ours"]
    assert ask.ask(bench, ask.gauges()).status == "passed"


class Encoded:
    """What encode of Hugging Face's tokenizers returns."""

    def __init__(self, ids):
        self.ids = ids


class Wrapped(Letters):
    def encode(self, text):
        return Encoded(super().encode(text))


def test_ids_may_come_in_an_object():
    texts = told(batches(0))
    asked = {
        "tokenizer": Wrapped(),
        "train_texts": texts,
        "val_texts": texts,
        "val_batches": lambda: batches(0),
    }
    diagnosis = diagnose(subject(**asked), rungs=("data",))
    assert "subject-error" not in {finding.code for finding in diagnosis.findings}
    assert verbatim(Bench(subject(**asked))) is not None


@pytest.mark.parametrize("field", ["train_texts", "val_texts"])
def test_texts_that_can_be_read_once_are_no_sequence(field):
    with pytest.raises(
        StoriesError, match=f"{field} must be a sequence of stories, got generator: make it a list"
    ):
        subject(**{field: (text for text in told(batches(0)))})


def test_what_a_clock_says_of_validation_may_change():
    clock = itertools.count(1)

    def timed(model, given):
        return {**evaluate(model, given), "seconds": next(clock), "tokens/s": 1 / next(clock)}

    ask = CHECKS["validation is repeatable"]
    assert ask.ask(Bench(subject(model=ByName, evaluate=timed)), ask.gauges()).status == "passed"
