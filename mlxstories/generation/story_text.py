"""From a beginning in words to a story in words: prompts with words never seen, and stories that end at a sentence."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection

from mlxstories.data.tokenizer import UNKNOWN, Tokenizer, words
from mlxstories.errors import listed

_ENDS = re.compile(r"[.!?…。！？]+[\"'”’»)\]]*(?=\s|$)")
_NAMED = 5  # words or characters never seen
_LEAST = 0.3  # of a story stays when it is cut at a sentence; else it is left as it is
_LIKE = 0.8  # similarity from which another spelling stands for a word (Ratcliff and Metzener 1988)


def encode(tokenizer: Tokenizer, prompt: str, context: int) -> tuple[list[int], list[str]]:
    """The tokens of a prompt, and notes on the words or characters that the model never saw.

    A word never seen is told as the known one of nearest spelling; without any, and characters, as the unknown token.
    Of a prompt that fills a context of so many tokens the end is kept, half of a context.
    """
    tokens, notes = _spelled(tokenizer, prompt)
    if len(tokens) < context:
        return tokens, notes
    kept = max(1, context // 2)
    note = (
        f"the prompt has {len(tokens):,} tokens and the model's context is {context:,}: it tells on from the last "
        f"{kept:,} of them"
    )
    return tokens[-kept:], [*notes, note]


def _spelled(tokenizer: Tokenizer, prompt: str) -> tuple[list[int], list[str]]:
    tokens = tokenizer.encode(prompt)
    if UNKNOWN not in tokens:
        return tokens, []
    pieces = words(prompt) if tokenizer.kind == "word" else list(prompt)
    known = tokenizer.backend.get_vocab() if tokenizer.kind == "word" else {}
    notes: dict[str, str] = {}
    unknown: dict[str, None] = {}  # in their order
    for place, (piece, token) in enumerate(zip(pieces, tokens, strict=True)):
        if token != UNKNOWN:
            continue
        near = difflib.get_close_matches(piece, known, n=1, cutoff=_LIKE)
        if near:
            tokens[place] = known[near[0]]
            notes[piece] = f"the model never saw {piece!r}: {near[0]!r} stands for it"
        else:
            unknown[piece] = None
    return tokens, [
        *notes.values(),
        *_never_seen(unknown, "word" if tokenizer.kind == "word" else "character"),
    ]


def _never_seen(pieces: Collection[str], what: str) -> list[str]:
    if not pieces:
        return []
    told = f"it is told as an unknown {what}" if len(pieces) == 1 else f"they are told as unknown {what}s"
    return [f"the model never saw {listed(map(repr, pieces), _NAMED)}: {told}"]


def ended(text: str) -> str:
    """A story that the context cut off, up to its last whole sentence; a short one without any as it is."""
    ends = [match.end() for match in _ENDS.finditer(text)]
    return text[: ends[-1]] if ends and ends[-1] >= _LEAST * len(text) else text


def ended_tokens(tokenizer: Tokenizer, tokens: list[int]) -> list[int]:
    """As `ended`, of tokens."""
    length = len(ended(tokenizer.decode(tokens)))
    while len(tokenizer.decode(tokens)) > length:
        tokens = tokens[:-1]
    return tokens


def told(tokenizer: Tokenizer, prompt: str, start: list[int], further: list[int], *, finished: bool) -> str:
    """A story in words: the prompt as it was given and what the model told on, ended at a sentence.

    Args:
        start: the tokens that the model was given for the prompt.
        further: those that it told.
        finished: whether the model ended the story itself.
    """
    given, text = tokenizer.decode(start), tokenizer.decode([*start, *further])
    if text.startswith(given):
        text = prompt + text[len(given) :]
    return text if finished else ended(text)
