"""Tokenizers: round trips, fixed special tokens, deterministic vocabularies, damaged files."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mlxstories.data import source, tokenizer
from mlxstories.data.tokenizer import END, KINDS, MASK, SPECIALS, UNKNOWN, Tokenizer, normalise, words
from mlxstories.errors import StoriesError

TEXTS = list(source.texts(50, 5))
PLAIN = st.text(alphabet=st.characters(exclude_categories=("Cs",)), max_size=40)
# Text in which marks and letters meet in every way.
MARKS = st.text(alphabet="aB1é \n\t'’‘“”\"«»„.,;:!?-—_()[]{}…%$<|>`\u0301\u00a0", max_size=30)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('Lily said, "Hello!"', "Lily said, “Hello!”"),
        ('"Oh," said Tom. "No."', "“Oh,” said Tom. “No.”"),
        ("the boys' toys don't 'stop'", "the boys’ toys don't ‘stop’"),
        ("  spaces \n\n and\ttabs ", "spaces and tabs"),
        ("a ,b ( c ) d", "a, b (c) d"),
        ("_so_ a__b __c__ 0_0", "so a_b c 0_0"),
        ('wait--"What?" he--', "wait—“What?” he—"),
        ("_Oh!_ snake_case", "Oh! snake_case"),
        ("1,000.50 at 3:30", "1,000.50 at 3:30"),
        ("Cafe\u0301’s", "Café's"),
        ("", ""),
    ],
)
def test_normalised_text(text, expected):
    assert normalise(text) == expected


def test_words_of_a_text():
    assert words('Don\'t, "you" merry-go-round!') == ["Don't", ",", "“", "you", "”", "merry-go-round", "!"]


@given(st.one_of(PLAIN, MARKS))
@settings(max_examples=150)
@example("0\0")
@example("”a“b’c‘")
@example("—'a'—\"b\"——")
def test_word_level_gives_back_the_normalised_text(text):
    normal = normalise(text)
    assert normalise(normal) == normal
    assert words(normal) == words(text)
    if words(text):
        tokenizer = Tokenizer.train("word", [text])
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == normal
        assert tokenizer.encode(normal) == ids
        assert UNKNOWN not in ids


@given(st.lists(st.integers(len(SPECIALS), 200), max_size=20))
@settings(max_examples=100)
def test_word_ids_survive_decoding_when_their_text_is_canonical(ids):
    tokenizer = WORD
    text = tokenizer.decode(ids)
    assert tokenizer.decode(tokenizer.encode(text)) == text


@given(PLAIN)
def test_bytes_give_back_any_text(text):
    assert BPE.decode(BPE.encode(text)) == text


@given(st.text(alphabet=sorted(set("".join(TEXTS))), max_size=60))
def test_characters_give_back_seen_characters(text):
    ids = CHAR.encode(text)
    assert len(ids) == len(text) and UNKNOWN not in ids
    assert CHAR.decode(ids) == text


def test_line_ends_and_spaces_are_characters():
    tokenizer = Tokenizer.train("char", ["a b\n\n\tc  "])
    assert tokenizer.decode(tokenizer.encode("c\n a\t ")) == "c\n a\t "


def test_story_words_are_tokens():
    for text in TEXTS:
        story = source.walk(words(text))
        assert [WORD.token(i) for i in WORD.encode(text)] == list(story.words)


@pytest.mark.parametrize("kind", KINDS)
def test_special_tokens_are_fixed_and_out_of_reach(kind):
    tokenizer = Tokenizer.train(kind, [*TEXTS, *SPECIALS], 2000)
    assert [tokenizer.token(i) for i in (END, UNKNOWN, MASK)] == list(SPECIALS)
    for text in (*SPECIALS, f"{TEXTS[0]} {SPECIALS[0]} {TEXTS[1]}", SPECIALS[0] * 2):
        ids = tokenizer.encode(text)
        assert min(ids) > MASK
        assert tokenizer.decode(ids) == tokenizer.normalise(text)
    ids = tokenizer.encode(TEXTS[0])
    assert tokenizer.decode([END, *ids, MASK, END]) == tokenizer.decode(ids)


def test_the_unknown_rate_is_the_share_of_unknown_tokens():
    tokenizer = Tokenizer.train("word", ["Tom ran home"])
    documents = tokenizer.encode_batch(["Tom ran", "Tom flew"])
    assert documents[1].tolist() == [tokenizer.encode("Tom")[0], UNKNOWN]
    assert tokenizer.unknown_rate(documents) == 0.25
    assert tokenizer.unknown_rate([]) == 0.0
    assert Tokenizer.train("char", ["ab"]).encode("abé")[-1] == UNKNOWN


def test_words_rank_by_frequency_then_alphabet():
    tokenizer = Tokenizer.train("word", ["b b c a d d", "d e"], 6)
    assert [tokenizer.token(i) for i in range(3, 6)] == ["d", "b", "a"]


@pytest.mark.parametrize("kind", KINDS)
def test_vocabulary_does_not_depend_on_the_order_of_texts(kind):
    forward, backward = (Tokenizer.train(kind, texts, 400) for texts in (TEXTS, TEXTS[::-1]))
    assert forward.backend.to_str() == backward.backend.to_str()
    assert forward.vocab_size <= 400


@pytest.mark.parametrize("kind", KINDS)
def test_saving_and_loading(kind, tmp_path):
    tokenizer = Tokenizer.train(kind, TEXTS, 2000)
    tokenizer.save(tmp_path / "tokenizer.json")
    again = Tokenizer.load(tmp_path / "tokenizer.json")
    assert again.kind == kind and again.vocab_size == tokenizer.vocab_size
    for text in TEXTS:
        assert again.encode(text) == tokenizer.encode(text)
        assert again.decode(again.encode(text)) == tokenizer.normalise(text)
    assert [path.name for path in tmp_path.iterdir()] == ["tokenizer.json"]


def test_the_library_alone_decodes(tmp_path):
    """tokenizer.json holds the decoder too."""
    import tokenizers

    WORD.save(tmp_path / "tokenizer.json")
    alone = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert alone.decode(alone.encode(TEXTS[0]).ids) == normalise(TEXTS[0])


def test_batches_are_small_integers():
    batch = WORD.encode_batch(TEXTS)
    assert all(ids.dtype == np.uint16 for ids in batch)
    assert [ids.tolist() for ids in batch] == [WORD.encode(text) for text in TEXTS]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "damaged"),
        (b"{", "damaged"),
        (b"\xff\xfe", "not a UTF-8 text"),
        (json.dumps({"version": "1.0"}).encode(), "damaged"),
    ],
)
def test_damaged_files_are_refused_by_name(content, message, tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_bytes(content)
    with pytest.raises(StoriesError, match=message) as raised:
        Tokenizer.load(path)
    assert str(path) in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.parametrize(("kind", "unknown"), [("word", "x"), ("word", None), ("char", "the"), ("bpe", "x")])
def test_a_file_whose_unknown_token_was_changed(tmp_path, kind, unknown):
    """The library raises only when it meets an unknown word."""
    Tokenizer.train(kind, TEXTS, 500).save(tmp_path / "a.json")
    description = json.loads((tmp_path / "a.json").read_text())
    description["model"]["unk_token"] = unknown
    (tmp_path / "a.json").write_text(json.dumps(description))
    with pytest.raises(StoriesError, match=r"a\.json"):
        Tokenizer.load(tmp_path / "a.json")


def test_foreign_and_missing_files(tmp_path):
    import tokenizers

    tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0}, unk_token="a")).save(str(tmp_path / "a.json"))
    with pytest.raises(StoriesError, match="not a tokenizer of mlxstories"):
        Tokenizer.load(tmp_path / "a.json")
    with pytest.raises(StoriesError, match="No such file"):
        Tokenizer.load(tmp_path / "missing.json")
    with pytest.raises(StoriesError, match="cannot write"):
        WORD.save(tmp_path / "missing" / "tokenizer.json")


@pytest.mark.parametrize(
    ("kind", "texts", "size", "message"),
    [
        ("words", ["a"], 100, "one of word, char, bpe; got 'words'"),
        ("word", ["a"], 3, "at least 4"),
        ("bpe", ["a"], 258, "at least 259"),
        ("word", [], 100, "nothing to learn"),
        ("word", [" \n"], 100, "nothing to learn"),
    ],
)
def test_bad_training_is_refused(kind, texts, size, message):
    with pytest.raises(StoriesError, match=message):
        Tokenizer.train(kind, texts, size)


@pytest.mark.parametrize("index", [-1, 10**6])
def test_ids_outside_the_vocabulary_are_refused(index):
    with pytest.raises(StoriesError, match=f"got {index}"):
        WORD.decode([5, index])
    with pytest.raises(StoriesError, match=f"got {index}"):
        WORD.token(index)


WORD = Tokenizer.train("word", TEXTS)
CHAR = Tokenizer.train("char", TEXTS)
BPE = Tokenizer.train("bpe", TEXTS, 500)


@pytest.fixture(scope="module")
def trained():
    texts = [*TEXTS, "aB1é \t'’‘“”\"«»„.,;:!?-—_()[]{}…%$<|>`\u0301\u00a0"]
    return {kind: Tokenizer.train(kind, texts, 400) for kind in KINDS}


@given(st.sampled_from(KINDS), MARKS)
def test_a_long_text_is_encoded_in_parts_as_in_one(trained, kind, text):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokenizer, "_PART", 1)
        (tokens,) = trained[kind].encode_batch([text])
        assert "".join(tokenizer.parts(text)) == text
        found = tokenizer.words(text)
    assert found == tokenizer.words(text)
    assert tokens.tolist() == trained[kind].encode(text)


@pytest.mark.parametrize("long", ["e" + "\u0301\u0323" * 100_000, "x" * 500_000, " " * 500_000])
def test_byte_pairs_are_learnt_from_a_word_without_end(long):
    """The library takes minutes for one such word where it is not cut."""
    runs = list(tokenizer.short_runs(f"Tom {long} ran."))
    assert "".join(runs) == f"Tom {long} ran." and max(map(len, runs)) < 1100
    learnt = Tokenizer.train("bpe", [*TEXTS, f"Tom {long} ran."], 300)
    assert learnt.decode(learnt.encode(long)) == long


@given(PLAIN.filter(lambda text: all(len(word) < 900 for word in text.split())))
def test_ordinary_text_is_learnt_from_whole(text):
    assert list(tokenizer.short_runs(text)) == [text]
