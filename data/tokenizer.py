"""Text to token ids and back, at the level of words, characters or byte pairs."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

import numpy as np
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers import Tokenizer as Backend

from mlxstories.bounds import check_choice
from mlxstories.errors import StoriesError
from mlxstories.storage.files import read_text, write_text

END, UNKNOWN, MASK = 0, 1, 2
SPECIALS = ("<|endoftext|>", "<|unknown|>", "<|mask|>")
KINDS = ("word", "char", "bpe")
T = TypeVar("T")

_CHUNK, _CHUNK_LENGTH = 1024, 1 << 19  # texts encoded in one call, and their characters

_PART = 1 << 16
_CUT = re.compile(r"(?<=\S)(?=[ \n])")
# longer than any token of use; the library learns in the square of it
_LONG = re.compile(r"\S{1000}|\s{1000}")

_LETTER = r"[\p{L}\p{M}\p{N}]"
# Words keep inner apostrophes, hyphens and underscores (don't, merry-go-round), numbers their inner
# points and colons (1,000 and 3:30); every other mark is a token of its own.
_PIECE = rf"{_LETTER}+(?:['_-]{_LETTER}+|(?<=\p{{N}})[.,:]\p{{N}}+)*|\S"


class Tokenizer:
    """Token ids of one kind of unit: ``word``, ``char`` or ``bpe``.

    END, UNKNOWN and MASK have the ids 0, 1 and 2 in every vocabulary. They are ordinary entries that no
    text can produce, so that a story which contains ``<|endoftext|>`` literally cannot end itself.
    """

    end = END

    def __init__(self, backend: Backend):
        self.backend = backend
        self.vocab_size: int = backend.get_vocab_size()
        self.kind: str = _kind_of(backend)

    @classmethod
    def train(cls, kind: str, texts: Iterable[str], vocab_size: int = 8192) -> Tokenizer:
        """Learn a vocabulary of at most ``vocab_size`` tokens, the three special ones included.

        Words and characters are ranked by frequency and then alphabetically, so that the same texts give
        the same ids. Raises StoriesError for an unknown kind, a size too small, or texts without words.
        """
        check_choice("tokenizer", kind, KINDS)
        smallest = len(SPECIALS) + (256 if kind == "bpe" else 1)
        if vocab_size < smallest:
            raise StoriesError(f"vocab_size must be at least {smallest} for {kind} tokens; got {vocab_size}")
        backend, trainer = _untrained(kind, vocab_size)
        cut = short_runs if kind == "bpe" else lambda part: [part]
        backend.train_from_iterator(
            (run for text in texts for part in parts(text) for run in cut(part)), trainer
        )
        if backend.get_vocab_size() < smallest:
            raise StoriesError("the texts contain nothing to learn a vocabulary from; give some stories")
        # The trainer registers the special tokens as "added", which makes the library look for them in
        # texts. Without that list they stay in the vocabulary and are never matched.
        description = json.loads(backend.to_str())
        description["added_tokens"] = []
        return cls(Backend.from_str(json.dumps(description)))

    @property
    def dtype(self) -> type[np.unsignedinteger]:
        """The smallest unsigned type that holds the vocabulary, uint16 or uint32."""
        return np.uint16 if self.vocab_size <= 1 << 16 else np.uint32

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, no special token added."""
        return self.backend.encode(text, add_special_tokens=False).ids

    def encode_batch(self, texts: Iterable[str]) -> list[np.ndarray]:
        """Token ids of many texts, of type ``dtype``."""
        found: list[list[np.ndarray]] = []
        numbered = ((number, part) for number, text in enumerate(texts) for part in parts(text))
        for chunk in chunks(numbered, text=lambda item: item[1]):
            encodings = self.backend.encode_batch_fast([part for _, part in chunk], add_special_tokens=False)
            for (number, _), encoding in zip(chunk, encodings, strict=True):
                if number == len(found):
                    found.append([])
                found[number].append(np.array(encoding.ids, dtype=self.dtype))
        return [tokens[0] if len(tokens) == 1 else np.concatenate(tokens) for tokens in found]

    def decode(self, ids: Iterable[int]) -> str:
        """The text of token ids; special tokens are dropped.

        Raises StoriesError for an id outside the vocabulary.
        """
        kept = [int(i) for i in ids]
        for i in kept:
            self._check(i)
        return self.backend.decode([i for i in kept if i >= len(SPECIALS)], skip_special_tokens=False)

    def token(self, index: int) -> str:
        """The vocabulary entry of one token id."""
        self._check(index)
        return self.backend.id_to_token(int(index))

    def _check(self, index: int) -> None:
        if not 0 <= index < self.vocab_size:
            raise StoriesError(f"token ids must lie in 0 to {self.vocab_size - 1}; got {index}")

    def normalise(self, text: str) -> str:
        """What ``decode(encode(text))`` gives when no token is unknown: the text itself for char and bpe."""
        return normalise(text) if self.kind == "word" else text

    def unknown_rate(self, documents: Iterable[np.ndarray]) -> float:
        """Share of UNKNOWN among all tokens of the documents."""
        unknown = total = 0
        for tokens in documents:
            unknown += int(np.count_nonzero(np.asarray(tokens) == UNKNOWN))
            total += len(tokens)
        return unknown / total if total else 0.0

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a self-contained tokenizer.json, in one piece or not at all."""
        write_text(Path(path), self.backend.to_str(pretty=True))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Tokenizer:
        """Read a tokenizer.json that ``save`` wrote; StoriesError if it is missing, damaged or foreign."""
        try:
            text = read_text(Path(path))
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "not a UTF-8 text"
            raise StoriesError(f"cannot read the tokenizer {path}: {reason}") from error
        try:
            backend = Backend.from_str(text)
        except Exception as error:  # the library raises bare Exception for everything
            raise StoriesError(
                f"{path} is not a tokenizer.json or is damaged ({error}); train again"
            ) from error
        try:
            return cls(backend)
        except StoriesError as error:
            raise StoriesError(f"{path}: {error}") from error


def normalise(text: str) -> str:
    """A text as words and marks with canonical spacing: what the word level can tell apart.

    NFC, curly quotes, dashes joined, whitespace collapsed, no space before closing marks. Idempotent.
    """
    pieces = _PIECES.pre_tokenize_str(_NORMALIZER.normalize_str(text))
    return _WORD_DECODER.decode([piece for piece, _ in pieces])


def words(text: str) -> list[str]:
    """The words and marks of a text, as the word level sees them."""
    normal = map(_NORMALIZER.normalize_str, parts(text))
    return [piece for part in normal for piece, _ in _PIECES.pre_tokenize_str(part)]


def _untrained(kind: str, vocab_size: int) -> tuple[Backend, trainers.Trainer]:
    options = {"vocab_size": vocab_size, "special_tokens": list(SPECIALS), "show_progress": False}
    if kind == "bpe":
        backend = Backend(models.BPE())
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        backend.decoder = decoders.ByteLevel()
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        return backend, trainers.BpeTrainer(initial_alphabet=alphabet, **options)
    backend = Backend(models.WordLevel(unk_token=SPECIALS[UNKNOWN]))
    if kind == "char":
        backend.pre_tokenizer = pre_tokenizers.Split(Regex(r"(?m:.)"), "isolated")  # (?m): . is any character
        backend.decoder = decoders.Fuse()
    else:
        backend.normalizer, backend.pre_tokenizer, backend.decoder = _NORMALIZER, _PIECES, _WORD_DECODER
    return backend, trainers.WordLevelTrainer(**options)


def _kind_of(backend: Backend) -> str:
    vocabulary = backend.get_vocab(with_added_tokens=False)
    if any(vocabulary.get(name) != index for index, name in enumerate(SPECIALS)):
        raise StoriesError(f"not a tokenizer of mlxstories: ids 0 to 2 must be {', '.join(SPECIALS)}")
    bpe = isinstance(backend.model, models.BPE)
    if not bpe and not isinstance(backend.model, models.WordLevel):
        raise StoriesError("not a tokenizer of mlxstories: its model must be WordLevel or BPE")
    if backend.model.unk_token != (None if bpe else SPECIALS[UNKNOWN]):
        raise StoriesError(
            f"not a tokenizer of mlxstories: unk_token is {str(backend.model.unk_token)[:40]!r}"
        )
    return "bpe" if bpe else "char" if backend.normalizer is None else "word"


def parts(text: str) -> Iterator[str]:
    """A text in parts whose tokens are together its own: the library takes 200 bytes for each character at a time.

    Parts of ``_PART`` characters or more end before a space, which no token of any kind goes across.
    """
    start = 0
    while len(text) - start > _PART and (cut := _CUT.search(text, start + _PART)):
        yield text[start : cut.start()]
        start = cut.start()
    yield text[start:]


def short_runs(text: str) -> Iterator[str]:
    """A text in parts, cut after each 1,000 characters without a space, or of spaces alone."""
    start = 0
    for run in _LONG.finditer(text):
        yield text[start : run.end()]
        start = run.end()
    yield text[start:]


def chunks(items: Iterable[T], text: Callable[[T], str] = lambda item: item) -> Iterator[list[T]]:
    """Items in lists of at most 1,024 and about half a million characters of their ``text``."""
    chunk: list[T] = []
    length = 0
    for item in items:
        chunk.append(item)
        length += len(text(item))
        if len(chunk) == _CHUNK or length >= _CHUNK_LENGTH:
            yield chunk
            chunk, length = [], 0
    if chunk:
        yield chunk


def _replace(pattern: str, content: str) -> normalizers.Normalizer:
    return normalizers.Replace(Regex(pattern), content)


def _opening(quote: str) -> str:
    """A straight quote opens after a space, an opening mark, or a dash that a word follows."""
    return rf"(?<!\S){quote}|(?<=[(\[{{“‘]){quote}|(?<=—){quote}(?={_LETTER})"


_NORMALIZER = normalizers.Sequence(
    [
        _replace(rf"(?<!{_LETTER}|_)_+|_+(?!{_LETTER}|_)|(?<=_)_+", ""),  # _emphasis_, snake__case
        normalizers.NFC(),
        _replace(r"--|―", "—"),
        _replace(r"[„‟«]", "“"),
        _replace(r"»", "”"),
        _replace(_opening('"'), "“"),
        _replace('"', "”"),
        _replace(rf"(?<={_LETTER})[’ʼ](?={_LETTER})", "'"),
        _replace(_opening("'"), "‘"),
        _replace(rf"(?<!{_LETTER})'|'(?!{_LETTER})", "’"),
    ]
)
_PIECES = pre_tokenizers.Split(Regex(_PIECE), "removed", invert=True)  # keeps the matches alone
_WORD_DECODER = decoders.Sequence(
    [
        # Puts a space between tokens; none begins with one, which would mark it as the rest of a word.
        decoders.WordPiece(prefix=" ", cleanup=False),
        decoders.Fuse(),
        decoders.Replace(Regex(r" (?=[.,!?;:)\]}”’…%])"), ""),
        decoders.Replace(Regex(r"(?<=[(\[{“‘]) "), ""),
        decoders.Replace(Regex(r" ?— ?"), "—"),
    ]
)
