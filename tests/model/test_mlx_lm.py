"""Architectures of mlx-lm in place of our transformer."""

import dataclasses
import json

import mlx.core as mx
import numpy as np
import pytest
from click.testing import CliRunner
from mlx.utils import tree_flatten

from mlxstories.cli import main
from mlxstories.data.dataset import DataConfig, load_dataset
from mlxstories.errors import StoriesError
from mlxstories.faults.architecture import architecture
from mlxstories.faults.architecture import generate as generate_with_mlx_lm
from mlxstories.generation.decoding import generate
from mlxstories.generation.sampling import SamplingConfig
from mlxstories.model import MlxLmConfig, block_of, build_model, read_config
from mlxstories.optim.build import is_decayed, is_hidden_matrix
from mlxstories.runs import checkpoints
from mlxstories.storage.serialize import to_dict
from mlxstories.training import experiment
from mlxstories.training.config import TrainingConfig
from mlxstories.training.phases import PHASE_1, PHASE_3

SOME = ["llama", "qwen3", "gemma3_text", "mixtral", "mamba", "gpt_neox", "lfm2", "qwen3_vl"]


@pytest.mark.parametrize("name", SOME)
def test_small_and_as_asked(name):
    config = MlxLmConfig.of_size(name, "debug", 50, context=32)
    model = build_model(read_config(json.loads(json.dumps(to_dict(config))), "here"))
    logits = model(mx.zeros((2, 7), dtype=mx.int32))
    assert logits.shape == (2, 7, 50)
    parameters = tree_flatten(model.parameters())
    blocks = {block_of(parameter) for parameter, _ in parameters}
    assert {"blocks.0", "blocks.1"} <= blocks and "blocks.2" not in blocks
    hidden = [path for path, array in parameters if is_hidden_matrix(path, array)]
    decayed = [path for path, array in parameters if is_decayed(path, array)]
    assert hidden and not any("emb" in path or "lm_head" in path for path in hidden)
    assert not any("emb" in path for path in decayed if "embed_out" not in path)


@pytest.mark.parametrize("name", ["llama", "gemma3_text", pytest.param("mamba", marks=pytest.mark.long)])
def test_our_decoding_is_that_of_mlx_lm(name):
    """Computed afresh for each token, and through mlx-lm's own cache, whichever kind it is."""
    mx.random.seed(1)
    model = build_model(MlxLmConfig.of_size(name, "debug", 50, context=24))
    prompts = [[5, 9, 3], [7], [4, 4, 8, 20, 11]]
    ours = generate(model, prompts, max_tokens=12, sampling=SamplingConfig(temperature=0), end=0)
    for prompt, told in zip(prompts, ours, strict=True):
        theirs = generate_with_mlx_lm(model, [0, *prompt], 12)
        assert told.tokens == theirs[: theirs.index(0)] if 0 in theirs else told.tokens == theirs


def test_a_run_trains_resumes_and_tells(tmp_path):
    dataset = load_dataset(DataConfig(stories=20, validation=4))
    config = MlxLmConfig.of_size("qwen3", "debug", dataset.tokenizer.vocab_size, context=96)
    phase = dataclasses.replace(PHASE_1, schedule=PHASE_3.schedule)
    training = TrainingConfig(steps=6, batch_size=2, evaluations=2)

    def start(name):
        return experiment.start(tmp_path / name, dataset, config, phase, training, lambda record: None)

    whole = start("whole")
    whole.train()
    first, last = (m["loss"] for m in whole.run.metrics() if m["split"] == "val" and m["step"] in (0, 6))
    assert last < first
    halved = start("halved")
    checkpoints_saved = []

    def stop(record):
        if record["split"] == "val" and record["step"] == 3:
            checkpoints_saved.append(record["step"])
            raise KeyboardInterrupt

    halved.report = stop
    with pytest.raises(KeyboardInterrupt):
        halved.train()
    resumed = experiment.resume(halved.run, lambda record: None)
    resumed.train()
    assert checkpoints_saved == [3]
    ours, theirs = (checkpoints.load_model(trainer.run, "last")[0] for trainer in (whole, resumed))
    pairs = zip(tree_flatten(ours.parameters()), tree_flatten(theirs.parameters()), strict=True)
    assert all(np.array_equal(a, b) for (_, a), (_, b) in pairs)
    told = CliRunner().invoke(main, ["sample", str(whole.run.path), "--num", "1", "--max-tokens", "5"])
    assert told.exit_code == 0, told.output


@pytest.mark.long
def test_the_ladder_examines_one():
    from mlxstories.ladder import diagnose

    diagnosis = diagnose(architecture("qwen3"), rungs=["data", "init"])
    assert diagnosis.healthy and diagnosis.subject == "mlx-lm:qwen3"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "--arch", "mlx-lm:nosuch"], "no architecture 'nosuch'"),
        (["train", "--arch", "mlx-lm:base"], "no architecture 'base'"),
        (["train", "--arch", "mlx-lm:llama", "--norm", "rms"], "leave out --norm"),
        (["train", "--arch", "llama"], "'llama' is not one of"),
        (["train", "--arch", "mlx-lm:llama", "--heads", "5"], "dim / heads must be even; got 64 / 5"),
        (["debug", "mlx-lm:qwen9"], "qwen2"),
    ],
)
def test_bad_requests_are_one_line_and_exit_code_2(tmp_path, arguments, words):
    small = ["--stories", "20", "--validation", "4", "--size", "debug", "--runs", str(tmp_path / "runs")]
    result = CliRunner().invoke(main, [*arguments, *(small if arguments[0] == "train" else [])])
    assert result.exit_code == 2 and "Traceback" not in result.output
    assert words in " ".join(result.output.split())
    assert not (tmp_path / "runs").exists()


def test_what_mlx_lm_cannot_build_is_said():
    config = MlxLmConfig("llama", 50, 32, {"model_type": "llama"})
    with pytest.raises(StoriesError, match="cannot build mlx-lm:llama: TypeError"):
        build_model(config)
