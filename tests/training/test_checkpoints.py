"""Checkpoints: the newest whole one is found whatever happened to the others, and only what fits is loaded."""

import json
import logging
import shutil
import struct

import mlx.core as mx
import pytest
from mlx.utils import tree_flatten

from mlxstories.data.tokenizer import Tokenizer
from mlxstories.errors import StoriesError
from mlxstories.model import ModelConfig, Transformer
from mlxstories.optim import OptimizerConfig, build_optimizer
from mlxstories.runs import checkpoints
from mlxstories.runs.checkpoint_state import Checkpoint
from mlxstories.runs.directory import Run
from mlxstories.storage.serialize import to_dict

CONFIG = ModelConfig(vocab_size=12, dim=8, layers=1, heads=2, context=8)


def parts(config=CONFIG):
    model = Transformer(config)
    optimizer = build_optimizer(OptimizerConfig(), lambda step: mx.array(1e-3))
    optimizer.init(model.trainable_parameters())
    return model, optimizer


@pytest.fixture
def run(tmp_path):
    tokenizer = Tokenizer.train("word", ["one two three four five six seven eight nine"], 12)
    return Run.create(tmp_path / "run", {"model": to_dict(CONFIG)}, tokenizer)


def save(run, *losses, keep=2):
    for step, loss in enumerate(losses, 1):
        mx.random.seed(step)
        checkpoints.save(run, *parts(), {"step": step, "val_loss": loss}, keep)


def steps(run):
    return [checkpoint.step for checkpoint in run.checkpoints()]


@pytest.mark.parametrize(
    "losses, keep, left",
    [
        ([5.0, 4.0, 3.0], 1, [3]),
        ([5.0, 4.0, 3.0], 2, [2, 3]),
        ([1.0, 4.0, None, 3.0], 2, [1, 3, 4]),
        ([None, None, None], 2, [2, 3]),
        ([1.0, 2.0, float("nan")], 1, [1, 3]),
    ],
)
def test_the_newest_and_the_best_are_kept(run, losses, keep, left):
    save(run, *losses, keep=keep)
    assert steps(run) == left
    assert {path.name for path in (run.path / "checkpoints").iterdir()} == {f"step-{step}" for step in left}


def flip(path, at, bit=0):
    content = bytearray(path.read_bytes())
    content[at] ^= 1 << bit
    path.write_bytes(content)


DAMAGES = {
    "a bit of the weights": lambda path: flip(path / "model.safetensors", -1),
    "a bit of the optimiser": lambda path: flip(path / "optimizer.safetensors", 100),
    "a digit of the state": lambda path: (path / "state.json").write_text(
        (path / "state.json").read_text().replace('"val_loss": 4.0', '"val_loss": 4.5')
    ),
    "cut weights": lambda path: (path / "model.safetensors").write_bytes(b"\x00" * 7),
    "no weights": lambda path: (path / "model.safetensors").unlink(),
    "no state": lambda path: (path / "state.json").unlink(),
    "nothing": lambda path: (shutil.rmtree(path), path.mkdir()),
    "deep state": lambda path: (path / "state.json").write_text("[" * 100_000),
    "a file in its place": lambda path: (shutil.rmtree(path), path.touch()),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("which", ["last", "best"])
def test_a_damaged_checkpoint_falls_back_with_one_line(run, caplog, damage, which):
    save(run, 6.0, 5.0, 4.0)
    DAMAGES[damage](run.path / "checkpoints" / "step-3")
    with caplog.at_level(logging.WARNING):
        assert run.checkpoint(which).step == 2
    (record,) = caplog.records
    assert "step-3" in record.message and "step 2" in record.message and "\n" not in record.message


def test_an_older_damaged_checkpoint_is_no_news(run, caplog):
    save(run, 6.0, 5.0)
    DAMAGES["no state"](run.path / "checkpoints" / "step-1")
    assert run.checkpoint("last").step == 2
    assert not caplog.records


def test_no_whole_checkpoint_is_one_clear_line(run):
    with pytest.raises(StoriesError, match="no checkpoint yet: wait for its first one, or"):
        run.checkpoint("last")
    save(run, 5.0)
    DAMAGES["a bit of the weights"](run.path / "checkpoints" / "step-1")
    with pytest.raises(StoriesError, match=r"no whole checkpoint.*SHA-256"):
        run.checkpoint("last")


def test_what_killed_processes_left_goes_with_the_next_save(run):
    folder = run.path / "checkpoints"
    save(run, 5.0)
    half = folder / ".step-2.abc.mlxstories-partial"
    half.mkdir()
    (half / "model.safetensors").write_bytes(b"half")
    (folder / "step-1x").mkdir()  # not ours
    save(run, 5.0, 4.0, 3.0)
    assert {path.name for path in folder.iterdir()} == {"step-2", "step-3", "step-1x"}


@pytest.mark.parametrize("name", ["step-1", "step-1/model.safetensors", "step-1/state.json"])
def test_links_out_of_the_run_are_not_followed(run, tmp_path, name):
    save(run, 5.0)
    path = run.path / "checkpoints" / name
    outside = tmp_path / "outside"
    path.rename(outside)
    path.symlink_to(outside)
    with pytest.raises(StoriesError, match="symbolic link"):
        run.checkpoint("last")
    save(run, 5.0, 4.0, 3.0)
    assert outside.exists()  # pruning removes the link, not its target


def sealed(run, name, content):
    """A checkpoint with a foreign file and the checksums to match, as only malice makes one."""
    save(run, 5.0)
    checkpoint = run.checkpoint("last")
    (checkpoint.path / name).write_bytes(content)
    (checkpoint.path / "state.json").unlink()
    state = {key: checkpoint.state[key] for key in ("step", "val_loss")}
    Checkpoint(checkpoint.path, state).write(checkpoint.path)
    return run.checkpoint("last")


def safetensors(header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


HUGE = {"embed.weight": {"dtype": "F32", "shape": [1 << 40, 1 << 20], "data_offsets": [0, 1 << 62]}}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff" * 8,
        struct.pack("<Q", 1 << 62) + b"{}",
        safetensors(b"[" * 50_000),
        safetensors({}),
        safetensors(HUGE),
        safetensors(
            {"embed.weight": {"dtype": "F32", "shape": [12, 8], "data_offsets": [0, 384]}}, bytes(384)
        ),
        safetensors({"../../evil": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, bytes(4)),
        b"\x80\x04\x95pickle",
    ],
    ids=range(9),
)
def test_a_header_that_does_not_fit_is_refused_before_anything_is_allocated(run, content):
    checkpoint = sealed(run, "model.safetensors", content)
    before = mx.get_active_memory()
    with pytest.raises(StoriesError, match=r"model\.safetensors") as error:
        checkpoints.restore(checkpoint, Transformer(CONFIG))
    assert "\n" not in str(error.value)
    assert mx.get_active_memory() - before < 1 << 20


@pytest.mark.parametrize("change", [{"dim": 16}, {"layers": 2}, {"tied": False}, {"norm": "layer"}])
def test_a_checkpoint_of_another_model_is_refused(run, change):
    save(run, 5.0)
    config = ModelConfig(**{**to_dict(CONFIG), "hidden": None, **change})
    with pytest.raises(StoriesError, match=r"does not fit this run: \S+"):
        checkpoints.restore(run.checkpoint("last"), Transformer(config))


def test_another_number_format_is_refused(run):
    save(run, 5.0)
    model = Transformer(CONFIG)
    model.set_dtype(mx.bfloat16)
    with pytest.raises(StoriesError, match="in name, type or shape"):
        checkpoints.restore(run.checkpoint("last"), model)


def test_arrays_come_back_bit_for_bit(run):
    save(run, 5.0)
    mx.random.seed(1)
    saved = dict(tree_flatten(parts()[0].parameters()))
    model, optimizer = parts()
    checkpoints.restore(run.checkpoint("last"), model, optimizer)
    for name, value in tree_flatten(model.parameters()):
        assert bool((saved[name] == value).all()), name


def test_a_later_format_is_named(run):
    save(run, 5.0)
    path = run.path / "checkpoints" / "step-1" / "state.json"
    path.write_text(path.read_text().replace('"format": 2', '"format": 3'))
    with pytest.raises(StoriesError, match="format 3"):
        run.checkpoint("last")
