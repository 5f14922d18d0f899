"""Exported directories as runs again."""

import json
import shutil

import mlx.core as mx
import numpy as np
import pytest
from click.testing import CliRunner
from mlx.utils import tree_flatten

from mlxstories.cli import main
from mlxstories.data.dataset import DataConfig, load_dataset
from mlxstories.errors import StoriesError
from mlxstories.export import export, import_model
from mlxstories.export.read import is_exported
from mlxstories.ladder import diagnose
from mlxstories.ladder.own_training import subject_of
from mlxstories.model import size_config
from mlxstories.runs.checkpoints import load_model
from mlxstories.training import experiment
from mlxstories.training.config import TrainingConfig
from mlxstories.training.phases import PHASE_1
from tests.export.conftest import load


@pytest.mark.parametrize(
    ("shape", "kind"), [("llama", "word"), ("llama untied", "bpe"), ("qwen3", "char"), ("gpt2", "word"),
     ("llama_mixing", "word"), ("llama_mixing untied", "bpe"), ("llama_mixing relu2", "word")]
)  # fmt: skip
def test_there_and_back_bit_for_bit(make_run, tmp_path, shape, kind):
    run = make_run(shape, kind, hidden=40)
    export(run, tmp_path / "there")
    back = import_model(tmp_path / "there", tmp_path / "runs" / "back")
    assert back.config["model"] == run.config["model"]
    assert (back.path / "tokenizer.json").read_bytes() == (run.path / "tokenizer.json").read_bytes()
    ours, theirs = (dict(tree_flatten(load_model(one)[0].parameters())) for one in (run, back))
    assert ours.keys() == theirs.keys()
    assert all(mx.array_equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("shape", ["llama", "qwen3", "gpt2", "llama_mixing"])
def test_what_mlx_lm_saved_comes_back(make_run, tmp_path, shape):
    """Saved by mlx-lm itself, with its own names, and without our part of config.json."""
    from mlx_lm.utils import save

    run = make_run(shape, "word", hidden=128)
    export(run, tmp_path / "there")
    model, tokenizer = load(tmp_path / "there")
    config = json.loads((tmp_path / "there" / "config.json").read_text())
    del config["mlxstories"]
    save(tmp_path / "saved", tmp_path / "there", model, tokenizer, config)
    back = import_model(tmp_path / "saved", tmp_path / "back")
    assert back.config["model"] == run.config["model"]
    ours, theirs = (dict(tree_flatten(load_model(one)[0].parameters())) for one in (run, back))
    assert all(mx.array_equal(ours[name], theirs[name]) for name in ours)
    told = CliRunner().invoke(main, ["sample", str(back.path), "--num", "1", "--prompt", "Tom was"])
    assert told.exit_code == 0 and told.stdout.startswith("Tom was")
    for use in (lambda: experiment.resume(back, print), lambda: subject_of(back)):
        with pytest.raises(StoriesError, match="without a recipe"):
            use()


@pytest.mark.parametrize("shape", ["llama", "gpt2"])
def test_quantised_weights_come_back_rounded(make_run, tmp_path, shape):
    run = make_run(shape, "char", dim=64)
    export(run, tmp_path / "there", bits=8)
    ours, theirs = load_model(run)[0], load_model(import_model(tmp_path / "there", tmp_path / "back"))[0]
    tokens = mx.array([[0, 5, 4, 9]])
    wanted, found = np.array(ours(tokens)), np.array(theirs(tokens))
    assert 0 < np.abs(found - wanted).max() < 0.05 * np.ptp(wanted)


def test_training_goes_on_from_the_weights(tmp_path):
    dataset = load_dataset(DataConfig(stories=20, validation=4))
    config = size_config("debug", dataset.tokenizer.vocab_size, context=96, separator=0)
    training = TrainingConfig(steps=8, batch_size=2, evaluations=1)
    first = experiment.start(tmp_path / "first", dataset, config, PHASE_1, training, lambda record: None)
    reached = first.train()
    export(first.run, tmp_path / "there", which="last")
    run = import_model(tmp_path / "there", tmp_path / "second")
    records = []
    second = experiment.resume(run, records.append)
    second.train()
    examined = diagnose(subject_of(run), rungs=["data"])
    assert examined.healthy and examined.subject == "second"
    validated = [record["loss"] for record in records if record["split"] == "val"]
    assert validated[0] == pytest.approx(reached.loss, abs=1e-6)
    assert validated[-1] < validated[0]
    assert second.progress.step == 8


def test_a_configuration_that_is_no_object_is_no_exported_model(tmp_path):
    (tmp_path / "config.json").write_text("5")
    assert not is_exported(tmp_path)


def test_bad_directories_are_one_line_and_exit_code_2(make_run, tmp_path):
    good = tmp_path / "good"
    export(make_run(), good)

    def broken(name, change):
        path = tmp_path / name
        shutil.copytree(good, path)
        change(path)
        result = CliRunner().invoke(main, ["import", str(path), "--runs", str(tmp_path / "runs")])
        assert result.exit_code == 2 and "Traceback" not in result.output, result.output
        assert not (tmp_path / "runs").exists()
        return " ".join(result.output.split())

    def edit(**values):
        def change(path):
            config = json.loads((path / "config.json").read_text())
            (path / "config.json").write_text(json.dumps({**config, **values}))

        return change

    assert "no config.json" in broken("nothing", lambda path: (path / "config.json").unlink())
    assert "none of llama" in broken("foreign", edit(model_type="mamba"))
    assert "mlxstories must be an object" in broken("worded", edit(mlxstories="x"))
    assert "mlxstories must be an object" in broken("listed", edit(mlxstories=[[1, 2]]))
    assert "checkpoint must be an object" in broken("elsewhere", edit(mlxstories={"checkpoint": 5}))
    assert "no model.safetensors" in broken("weightless", lambda path: (path / "model.safetensors").unlink())
    assert "cannot be read" in broken("cut", lambda path: (path / "model.safetensors").write_bytes(b"short"))
    assert "lacks num_attention_heads" in broken(
        "partial", lambda path: (path / "config.json").write_text('{"model_type": "llama"}')
    )
    assert "rope_theta is 5" in broken("other", edit(mlxstories=None, rope_theta=5))
    assert "tokenizer.json" in broken("tongue", lambda path: (path / "tokenizer.json").write_text("{}"))
    assert "do not fit" in broken("shape", edit(mlxstories=None, intermediate_size=16))


def test_what_is_no_exported_model_is_told_as_what_it_is(make_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = make_run("llama", "word")
    (tmp_path / "a.txt").write_text("Tom ran.")
    (tmp_path / "tales").mkdir()
    for source, told in (
        (run.path, f"{run.path} is a run already and needs no import: mlxstories sample {run.path}"),
        ("lost", "lost does not exist: give the directory that `mlxstories export` wrote"),
        ("a.txt", "a.txt is no directory: give the directory"),
        ("tales", "tales has no config.json: it is not what `mlxstories export` or mlx-lm wrote"),
    ):
        result = CliRunner().invoke(main, ["import", str(source)])
        assert result.exit_code == 2 and told in " ".join(result.output.split()), result.output
    assert not (tmp_path / "runs").exists()
