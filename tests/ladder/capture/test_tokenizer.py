"""The tokenizer of a script, and what its end token shows."""

from __future__ import annotations

import pytest

from mlxstories.ladder import diagnose
from tests.ladder.scripts import LOOP, MODEL

CODES = """
class Codes:
    END
    def encode(self, text):
        return [1 + (ord(c) - 97) % SIZE for c in text]
    def decode(self, ids):
        return "".join("?abcdefghijkl"[i] for i in ids)
"""
TOLD = [
    ("codes = Codes()", "eos_token_id = 11", 10, 11),
    ("from types import SimpleNamespace\nholder = SimpleNamespace(codes=Codes())", "eot_token = 11", 10, 11),
    ("codes = Codes()", "pass", 10, None),
    ("codes = Codes()", "eot_token = property(lambda self: {}['<|endoftext|>'])", 10, None),
]


@pytest.mark.parametrize("made, end, size, eos", TOLD)
def test_the_tokenizer_beside_the_loop_is_found(captured, made, end, size, eos):
    text = CODES.replace("END", end).replace("SIZE", str(size)) + made + "\n"
    tokenizer = captured(MODEL + text + LOOP).subject.tokenizer
    assert tokenizer.encode("ab") == [1, 2] and tokenizer.decode([1, 2]) == "ab"
    with pytest.raises(ValueError, match="not in its vocabulary"):
        tokenizer.encode("z")
    assert tokenizer.eos_token_id == eos


@pytest.mark.parametrize(
    "made",
    [
        "",
        "codes = Codes  # the class alone\n",
        "def decode(ids):\n    return 'x'\n",
        "codes = Codes()\nCodes.encode = lambda self, text: [99]  # ids that the model has not\n",
        "codes = Codes()\ndef fails(self, ids):\n    raise KeyError(1)\nCodes.decode = fails\n",
    ],
)
def test_what_cannot_read_the_batches_is_no_tokenizer(captured, made):
    text = CODES.replace("END", "pass").replace("SIZE", "10") + made
    assert captured(MODEL + text + LOOP).subject.tokenizer is None


PADDED = """
def loss_fn(model, x, y, lengths):
    mask = mx.arange(x.shape[1])[None] < lengths[:, None] - SHORT
    return (nn.losses.cross_entropy(model(x), y) * mask).sum() / mask.sum()
codes = Codes()
def texts():
    ids, lengths = np.zeros((B, T + 1), np.int32), rng.integers(4, T - 2, B)
    for row, n in zip(ids, lengths):
        row[: n - 1], row[n - 1] = rng.integers(1, 11, n - 1), LAST
    return mx.array(ids), mx.array(lengths)
"""


@pytest.mark.parametrize(
    "short, last, code",
    [
        (1, "11", None),
        (0, "11", "padding-in-loss"),
        (1, "rng.integers(1, 11)", "end-never-trained"),
        (0, "rng.integers(1, 11)", "end-never-trained"),
    ],
)
def test_its_end_token_tells_what_stands_at_the_end_of_rows(captured, short, last, code):
    text = MODEL + CODES.replace("END", "eos_token_id = 11").replace("SIZE", "10")
    text += PADDED.replace("SHORT", str(short)).replace("LAST", last)
    text += LOOP.replace("data = rows()", "data, n = texts()").replace("data[:, 1:])", "data[:, 1:], n)")
    found = {f.code for f in diagnose(captured(text, batches=40).subject, rungs=["data"]).findings}
    assert found & {"padding-in-loss", "end-never-trained"} == ({code} if code else set())


def test_a_tokenizer_whose_encode_returns_an_object_is_found(captured):
    codes = CODES.replace("END", "pass").replace("SIZE", "10")
    codes = codes.replace(
        "        return [1",
        "        from types import SimpleNamespace as Encoding\n        return Encoding(ids=[1",
    )
    codes = codes.replace("for c in text]", "for c in text])")
    assert captured(MODEL + codes + "codes = Codes()\n" + LOOP).subject.tokenizer.encode("ab") == [1, 2]
