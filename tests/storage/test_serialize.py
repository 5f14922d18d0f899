"""Configurations survive JSON, and damage is named."""

import json

import pytest

from mlxstories.errors import StoriesError
from mlxstories.model import ModelConfig
from mlxstories.storage.serialize import from_dict, parse_json, read_json, to_dict
from mlxstories.training.phases import PHASES, Phase


@pytest.mark.parametrize(
    "value", [*PHASES.values(), ModelConfig(100), ModelConfig(7, dim=8, heads=2, separator=0)]
)
def test_round_trip_through_json(value):
    assert from_dict(type(value), json.loads(json.dumps(to_dict(value))), "here") == value


@pytest.mark.parametrize(
    "damage, named",
    [
        ({"surprise": 1}, "surprise"),
        ({"dim": "wide"}, "dim"),
        ({"heads": 7}, "heads"),
    ],
)
def test_unknown_fields_wrong_types_and_wrong_values_are_named(damage, named):
    with pytest.raises(StoriesError, match=named) as error:
        from_dict(ModelConfig, to_dict(ModelConfig(100)) | damage, "config.json, model")
    assert "config.json, model" in str(error.value)


def test_a_value_is_refused_in_the_words_of_its_own_check():
    with pytest.raises(StoriesError) as error:
        from_dict(ModelConfig, to_dict(ModelConfig(100)) | {"layers": 10**7}, "here")
    assert str(error.value) == (
        "here is not a valid ModelConfig: layers must be a whole number from 1 to 1,000; got 10000000."
    )


@pytest.mark.parametrize("values", [None, 3, [], "text", {}])
def test_anything_else_is_refused(values):
    with pytest.raises(StoriesError, match="here"):
        from_dict(Phase if values is None else ModelConfig, values, "here")


def test_a_missing_or_damaged_file_is_named(tmp_path):
    with pytest.raises(StoriesError, match=r"a\.json is missing"):
        read_json(tmp_path / "a.json")
    (tmp_path / "b.json").write_bytes(b"\xff{")
    with pytest.raises(StoriesError, match=r"b\.json cannot be read"):
        read_json(tmp_path / "b.json")


def test_half_a_character_is_no_text():
    for text in (r'"\ud800"', r'{"a": ["\uDFFF"]}', r'{"\udc00": 1}', r'"\ude42\ud83d"'):
        with pytest.raises(ValueError, match="half a character"):
            parse_json(text)
        parse_json(text, halves=True)
    assert parse_json(r'"\ud83d\ude42 \\ud800"') == "\N{SLIGHTLY SMILING FACE} \\ud800"
