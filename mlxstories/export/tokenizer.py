"""Our tokenizer as one of transformers, and back.

A story begins with END, as in training: the post-processor puts it in front of every prompt, where mlx-lm and
transformers both expect the beginning-of-text token. They also look for the special tokens in texts, which ours
never does.
"""

from __future__ import annotations

import json
from typing import Any

from tokenizers import Tokenizer as Backend

from mlxstories.data.tokenizer import END, MASK, SPECIALS, UNKNOWN, Tokenizer
from mlxstories.errors import StoriesError

PADDING = MASK  # which stands in no story, so that padding is told apart from the END in front


def tokenizer_json(tokenizer: Tokenizer) -> dict[str, Any]:
    """The contents of ``tokenizer.json``."""
    description = json.loads(tokenizer.backend.to_str())
    description["added_tokens"] = [
        {
            "id": index,
            "content": name,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": True,
        }
        for index, name in enumerate(SPECIALS)
    ]
    end = SPECIALS[END]
    first = {"SpecialToken": {"id": end, "type_id": 0}}
    description["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [first, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [first, *({"Sequence": {"id": name, "type_id": 0}} for name in "AB")],
        "special_tokens": {end: {"id": end, "ids": [END], "tokens": [end]}},
    }
    return description


def tokenizer_config(context: int) -> dict[str, Any]:
    """The contents of ``tokenizer_config.json`` for a model of ``context`` tokens."""
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": SPECIALS[END],
        "eos_token": SPECIALS[END],
        "pad_token": SPECIALS[PADDING],
        "unk_token": SPECIALS[UNKNOWN],
        "clean_up_tokenization_spaces": False,
        "model_max_length": context,
    }


def restored(description: Any) -> Tokenizer:
    """The tokenizer of a ``tokenizer.json`` that `tokenizer_json` gave.

    Raises:
        StoriesError: it is not one of ours.
    """
    if not isinstance(description, dict):
        raise StoriesError("not a tokenizer of mlxstories.")
    plain = {**description, "added_tokens": [], "post_processor": None, "padding": None, "truncation": None}
    try:
        backend = Backend.from_str(json.dumps(plain))
    except Exception as error:  # the library raises bare Exception for everything
        raise StoriesError(f"not a tokenizer of this library ({error})") from error
    return Tokenizer(backend)
