"""Stories as the report shows them: each token with what the model, and where known the source, thought of it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mlxstories.data import source
from mlxstories.data.texts import validation_seed
from mlxstories.data.tokenizer import Tokenizer
from mlxstories.data.verbatim import Passage
from mlxstories.generation.reading import Reading, read
from mlxstories.generation.story_text import ended_tokens
from mlxstories.plots.report.own import OwnText, own_text
from mlxstories.runs.checkpoints import load_model
from mlxstories.runs.directory import Run
from mlxstories.training import experiment

_SURE = (0.9, 0.5, 0.2, 0.05)  # a token's probability at the least, from class 0 to class 3; below, class 4


@dataclass(frozen=True)
class Token:
    """A token and what was thought of it before it came.

    Attributes:
        text: as it stands in the story, with the space before it.
        probability: the model's.
        entropy: of the model's distribution, nats.
        likeliest: what the model held for most probable, or None where it is the token itself.
        kind: choice, recall, fixed, or "never" where the source could not go on so; None where not known.
        known: the source's own probability; None where not known.
    """

    text: str
    probability: float
    entropy: float
    likeliest: str | None
    kind: str | None = None
    known: float | None = None

    @property
    def surprise(self) -> int:
        """0 (the model was sure of it) to 4 (it was almost excluded)."""
        return next((index for index, least in enumerate(_SURE) if self.probability >= least), len(_SURE))


@dataclass(frozen=True)
class Story:
    """A story with its tokens.

    Attributes:
        title: what it is.
        loss: mean -log p of its tokens, nats.
        shared: the longest passage that it shares with the training text, where that is known.
        left: the number of the word, from 1, at which it left what the source can tell; None where it never did
            or that is not known.
    """

    title: str
    tokens: list[Token]
    loss: float
    left: int | None
    shared: Passage | None = None

    @property
    def known(self) -> bool:
        """Whether kinds of tokens are known."""
        return any(token.kind for token in self.tokens)


def stories(run: Run, count: int, which: str = "best") -> list[Story]:
    """``count`` stories that a run's ``"best"`` or ``"last"`` checkpoint tells, and one held-out story, read by it.

    Of a text of one's own, stories are held against what they were trained on, where that still lies where it did.

    The same seed and temperature as at the end of training, so a finished run tells what ``samples.txt`` holds, what
    the context cut off ended at a sentence.

    Raises:
        StoriesError: no checkpoint, a damaged one, or a model that tells no stories.
    """
    model, tokenizer, config = load_model(run, which)
    end, own = tokenizer.end, own_text(config)
    told = experiment.tell(model, count, seed=config.get("seed") or 0, end=end)
    texts = [
        [*story.tokens, end] if story.finished else ended_tokens(tokenizer, story.tokens) for story in told
    ]
    shared = own.shared([tokenizer.decode(text) for text in texts]) if own else [None] * len(texts)
    shown = [
        (f"Story {number} it tells", text, passage)
        for number, (text, passage) in enumerate(zip(texts, shared, strict=True), 1)
    ]
    data = config.get("data") or {}
    built_in = data.get("source") == "stories" and tokenizer.kind == "word"
    held_out = _held_out(tokenizer, data, own, model.config.context) if built_in or own else []
    shown = [one for one in (*shown, ("A held-out story, read by it", held_out, None)) if one[1]]
    readings = read(model, [text for _, text, _ in shown], end=end)
    return [
        dataclasses.replace(_story(title, reading, tokenizer, built_in), shared=passage)
        for (title, _, passage), reading in zip(shown, readings, strict=True)
    ]


def _held_out(tokenizer: Tokenizer, data: dict[str, Any], own: OwnText | None, context: int) -> list[int]:
    """A held-out text with its end: of one's own, or the first of the built-in source."""
    text = own.held_out if own else source.stories(1, validation_seed(data.get("seed", 0)))[0].text
    tokens = [*tokenizer.encode(text), tokenizer.end]
    return ended_tokens(tokenizer, tokens[:context]) if own and len(tokens) > context else tokens[:context]


def _story(title: str, reading: Reading, tokenizer: Tokenizer, built_in: bool) -> Story:
    ids = reading.tokens.tolist()
    ended = ids[-1] == tokenizer.end
    kinds: list[str | None] = [None] * len(ids)
    known: list[float | None] = [None] * len(ids)
    left = None
    if built_in:
        told, count = source.beginning([tokenizer.token(i) for i in (ids[:-1] if ended else ids)])
        count = min(count, len(ids))
        kinds[:count] = [source.KINDS[kind] for kind in told.kind[:count]]
        known[:count] = [math.exp(-nats) for nats in told.nats[:count].tolist()]
        if count < len(ids):
            left, kinds[count], known[count] = count + 1, "never", 0.0
    tokens = [
        Token(
            text,
            float(probability),
            float(entropy),
            None if likeliest == index else _name(tokenizer, likeliest),
            kind,
            p,
        )
        for index, text, probability, entropy, likeliest, kind, p in zip(
            ids,
            _spelled(tokenizer, ids),
            reading.probability,
            reading.entropy,
            reading.likeliest.tolist(),
            kinds,
            known,
            strict=True,
        )
    ]
    loss = -sum(math.log(max(token.probability, 1e-30)) for token in tokens) / len(tokens)
    return Story(title, tokens, loss, left)


def _spelled(tokenizer: Tokenizer, ids: Sequence[int]) -> list[str]:
    """What each token adds to the text; a character cut in two is added by its last part."""
    shown, pieces = "", []
    for place, index in enumerate(ids):
        if index == tokenizer.end:
            pieces.append(" ∎")
            continue
        text = tokenizer.decode(ids[: place + 1])
        grown = text.startswith(shown) and not text.endswith("\N{REPLACEMENT CHARACTER}")
        pieces.append(text[len(shown) :] if grown else "")
        shown = text if grown else shown
    return pieces


def _name(tokenizer: Tokenizer, index: int) -> str:
    """A token by itself, as words name it."""
    if index == tokenizer.end:
        return "the end"
    return tokenizer.decode([index]).strip() or tokenizer.token(index)
