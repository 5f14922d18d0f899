"""The model file of an export with mixing, in mlx-lm's hands: its caches, batches and its command."""

import subprocess
import sys

import mlx.core as mx
import numpy as np
import pytest
from mlx_lm import batch_generate
from mlx_lm.models.cache import ArraysCache, BatchKVCache, CacheList, make_prompt_cache

from mlxstories.export import export
from mlxstories.generation.decoding import generate
from mlxstories.generation.sampling import SamplingConfig
from mlxstories.runs.checkpoints import load_model
from tests.export.conftest import OLD, load

PROMPTS = ("Tom was", "Mia found the ball, and Tom was happy. Tom lost a", "Mia")


@pytest.fixture(scope="module", params=["llama_mixing", "llama_mixing untied", "llama_mixing relu2"])
def exported(request, make_run, tmp_path_factory):
    """Our model and its tokenizer, mlx-lm's, and where it lies."""
    run, to = make_run(request.param), tmp_path_factory.mktemp("exported") / "tale"
    assert export(run, to)["code"] == "llama_mixing.py"
    return *load_model(run)[:2], *load(to), to


def test_mixing_is_there(exported):
    ours, _, theirs, _, _ = exported
    tokens = mx.array([[0, 5, 4, 9, 8, 7]])
    wanted = np.array(ours(tokens))
    np.testing.assert_allclose(np.array(theirs(tokens)), wanted, atol=1e-4)
    for block in ours.blocks:
        taps, block.neighbours.taps = block.neighbours.taps, mx.zeros_like(block.neighbours.taps)
        assert np.abs(np.array(ours(tokens)) - wanted).max() > 1e-2
        block.neighbours.taps = taps


@pytest.mark.parametrize("chunks", [[12], [1] * 12, [2, 1, 1, 5, 3]])
def test_the_cache_gives_the_logits_of_the_whole(exported, chunks):
    ours, _, theirs, _, _ = exported
    tokens = mx.array([[0, 5, 4, 9, 8, 7, 6, 5, 11, 3, 4, 4], [0, 7, 7, 3, 2, 9, 8, 12, 5, 6, 3, 2]])
    cache, logits, at = make_prompt_cache(theirs), [], 0
    for length in chunks:
        logits.append(theirs(tokens[:, at : at + length], cache))
        at += length
    np.testing.assert_allclose(np.array(mx.concatenate(logits, axis=1)), np.array(ours(tokens)), atol=1e-4)


@pytest.mark.skipif(OLD, reason="mlx-lm before 0.32")
def test_prompts_of_unequal_lengths_at_once(exported):
    """mlx-lm pads them; what it pads with must not be mixed in."""
    ours, tokenizer, theirs, their_tokenizer, _ = exported
    prompts = [tokenizer.encode(prompt) for prompt in PROMPTS]
    greedy = SamplingConfig(temperature=0)
    told = [generate(ours, [p], max_tokens=12, sampling=greedy, end=tokenizer.end)[0].tokens for p in prompts]
    found = batch_generate(
        theirs,
        their_tokenizer,
        [[tokenizer.end, *p] for p in prompts],
        max_tokens=12,
        return_token_ids=True,
    )
    rows = [[token for token in row if token != tokenizer.end] for row in found.token_ids]
    assert rows == told


def test_padding_in_front_is_not_mixed_in(exported):
    ours, _, theirs, _, _ = exported
    story, padding = [0, 5, 4, 9, 8], 2
    cache = [CacheList(BatchKVCache([padding]), ArraysCache(1, [padding])) for _ in theirs.layers]
    rows = mx.array([[7] * padding + story])
    logits = mx.concatenate([theirs(rows[:, :5], cache), theirs(rows[:, 5:], cache)], axis=1)
    np.testing.assert_allclose(np.array(logits[:, padding:]), np.array(ours(mx.array([story]))), atol=1e-4)


@pytest.mark.long
@pytest.mark.skipif(OLD, reason="mlx-lm before 0.32")
def test_the_command_that_export_names(exported, capfd):
    to = exported[-1]
    command = [
        sys.executable,
        "-m",
        "mlx_lm",
        "generate",
        "--model",
        str(to),
        "--prompt",
        "Tom",
        "--max-tokens",
        "3",
    ]
    assert "trust" in subprocess.run(command, capture_output=True, text=True).stderr
    subprocess.run([*command, "--trust-remote-code"], check=True, capture_output=True)
    assert f"--model {to.name} --trust-remote-code" in (to / "README.md").read_text("utf-8")
    assert "transformers import" not in (to / "README.md").read_text("utf-8")
