"""The texts of one's own that a report reads again."""

import shutil

from mlxstories.data import source
from mlxstories.data.config import DataConfig
from mlxstories.plots.report.own import own_text
from mlxstories.storage.serialize import to_dict


def test_texts_are_found_again_with_their_files(tmp_path):
    told = list(source.texts(8, 4))
    for number, text in enumerate(told):
        (tmp_path / f"tale-{number}.txt").write_text(text)
    config = {"data": to_dict(DataConfig(source=(str(tmp_path),)))}
    own = own_text(config)
    assert own.held_out in told and len(own.train) == 7
    assert own.held_out not in [text for _, text in own.train]
    assert all(told[int(name.removeprefix("tale-").removesuffix(".txt"))] == text for name, text in own.train)
    name, text = own.train[3]
    (passage,) = own.shared([text[: len(text) // 2]])
    assert passage.source == name and passage.words > 20
    shutil.rmtree(tmp_path)
    assert own_text(config) is None


def test_other_sources_and_broken_configurations_have_none():
    for config in ({"data": to_dict(DataConfig())}, {}, {"data": {"source": 3}}):
        assert own_text(config) is None
