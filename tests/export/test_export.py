"""Exported directories as mlx-lm and transformers see them."""

import json
import re
import shlex

import mlx.core as mx
import numpy as np
import pytest
from huggingface_hub import ModelCard
from mlx.utils import tree_flatten

from mlxstories.errors import StoriesError
from mlxstories.export import export, model_type_of
from mlxstories.export.card import in_shell
from mlxstories.generation.decoding import generate
from mlxstories.generation.sampling import SamplingConfig
from mlxstories.model import MlxLmConfig, ModelConfig
from mlxstories.optim import OptimizerConfig, build_optimizer
from mlxstories.runs import checkpoints
from mlxstories.runs.checkpoints import load_model
from mlxstories.runs.directory import Run
from tests.export.conftest import load

PROMPT = "Tom was"
PAIRS = [("llama", "word"), ("llama untied", "char"), ("qwen3", "word"), ("gpt2", "bpe"), ("gpt2", "char"),
         ("llama", "bpe"), ("gpt2", "word"), ("llama_mixing", "word"), ("llama_mixing untied", "bpe"),
         ("llama_mixing relu2", "word")]  # fmt: skip


@pytest.fixture(scope="module", params=PAIRS, ids=lambda pair: " ".join(pair))
def exported(request, make_run, tmp_path_factory):
    """A run, its directory, the logits of the prompt and its greedy continuation."""
    run = make_run(*request.param)
    to = tmp_path_factory.mktemp("exported") / "tale"
    done = export(run, to)
    assert done["model_type"] == request.param[0].split()[0]
    model, tokenizer, _ = load_model(run)
    prompt = tokenizer.encode(PROMPT)
    greedy = SamplingConfig(temperature=0)
    told = generate(model, [prompt], max_tokens=20, sampling=greedy, end=tokenizer.end)[0]
    logits = np.array(model(mx.array([[tokenizer.end, *prompt]])))
    assert np.ptp(logits) > 1
    return to, tokenizer, prompt, logits, told.tokens


def test_mlx_lm_says_the_same(exported):
    from mlx_lm import stream_generate

    to, tokenizer, prompt, logits, told = exported
    model, theirs = load(to)
    assert theirs.encode(PROMPT) == [tokenizer.end, *prompt]
    assert set(theirs.eos_token_ids) == {tokenizer.end}
    np.testing.assert_allclose(np.array(model(mx.array([[tokenizer.end, *prompt]]))), logits, atol=1e-4)
    answers = list(stream_generate(model, theirs, PROMPT, max_tokens=20))
    tokens = [answer.token for answer in answers if answer.token != tokenizer.end]
    assert tokens == told
    # ours leaves them out
    text = re.sub(r"<\|(unknown|mask)\|>", "", "".join(answer.text for answer in answers))
    assert (PROMPT + text).replace(" ", "") == tokenizer.decode([*prompt, *told]).replace(" ", "")


def test_transformers_says_the_same(exported):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    to, tokenizer, prompt, logits, told = exported
    if (to / "llama_mixing.py").exists():
        pytest.skip("transformers cannot build it")
    theirs = transformers.AutoTokenizer.from_pretrained(to)
    model = transformers.AutoModelForCausalLM.from_pretrained(to).eval()
    inputs = theirs(PROMPT, return_tensors="pt")
    assert inputs["input_ids"].tolist() == [[tokenizer.end, *prompt]]
    with torch.no_grad():
        np.testing.assert_allclose(model(**inputs).logits.numpy(), logits, atol=1e-4)
    ids = model.generate(**inputs, max_new_tokens=20, do_sample=False)[0].tolist()
    assert [i for i in ids[1 + len(prompt) :] if i != tokenizer.end] == told
    assert theirs.decode(ids, skip_special_tokens=True) == tokenizer.decode([*prompt, *told])
    assert theirs.decode(theirs.encode("Mia said “Tom!”"), skip_special_tokens=True) == tokenizer.decode(
        tokenizer.encode("Mia said “Tom!”")
    )


@pytest.mark.parametrize("shape", ["llama", "gpt2", "llama_mixing"])
@pytest.mark.parametrize(("dtype", "bits", "tolerance"), [("bfloat16", None, 0.05), ("float16", 8, 0.05)])
def test_fewer_bits_stay_close_to_the_model(make_run, tmp_path, shape, dtype, bits, tolerance):
    run = make_run(shape, "char", dim=64, hidden=96)
    export(run, tmp_path / "tale", dtype=dtype, bits=bits)
    model, _ = load(tmp_path / "tale")
    kinds = {array.dtype for _, array in tree_flatten(model.parameters())}
    assert kinds == {getattr(mx, dtype)} | ({mx.uint32} if bits else set())
    ours, _, _ = load_model(run)
    tokens = mx.array([[0, 5, 4, 9, 8, 7]])
    wanted, found = np.array(ours(tokens)), np.array(model(tokens).astype(mx.float32))
    assert np.abs(found - wanted).max() < tolerance * np.ptp(wanted)


def test_the_step_is_that_of_the_weights_though_a_better_one_is_saved_meanwhile(
    make_run, tmp_path, monkeypatch
):
    run, find = make_run(), Run.checkpoint
    model, optimizer = load_model(run)[0], build_optimizer(OptimizerConfig())
    optimizer.init(model.trainable_parameters())

    def checkpoint(run, which):
        found = find(run, which)
        checkpoints.save(run, model, optimizer, {"step": found.step + 1, "val_loss": 1.0})
        return found

    monkeypatch.setattr(Run, "checkpoint", checkpoint)
    assert export(run, tmp_path / "tale")["step"] == 7


def test_a_narrow_gpt2_is_filled_up(make_run, tmp_path):
    run = make_run("gpt2", "char", hidden=40)
    export(run, tmp_path / "tale")
    ours, _, _ = load_model(run)
    tokens = mx.array([[0, 5, 4, 9]])
    np.testing.assert_allclose(load(tmp_path / "tale")[0](tokens), ours(tokens), atol=1e-4)


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"positions": "sinusoidal"}, "positions sinusoidal; the nearest is llama: train with --positions rope"),
        ({"norm": "layer", "positions": "learned", "feed_forward": "relu2"}, "gpt2: train with --feed-forward gelu"),
        ({"norm": "layer", "positions": "learned", "feed_forward": "gelu", "tied": False}, "train with --tied"),
        ({"norm": "layer", "positions": "learned", "feed_forward": "gelu", "hidden": 129}, "--hidden 128"),
        ({"norm": "layer", "positions": "learned", "feed_forward": "gelu", "qk_norm": True}, "--no-qk-norm"),
        ({"feed_forward": "relu2"}, "llama: train with --feed-forward swiglu"),
        ({"mixing": 4, "feed_forward": "gelu"}, "llama_mixing: train with --feed-forward swiglu"),
        ({"arch": "encoder"}, "arch encoder; the nearest is llama: train with --arch decoder"),
    ],
)  # fmt: skip
def test_a_model_without_counterpart_is_refused_with_the_nearest(parts, words):
    with pytest.raises(StoriesError, match=words):
        model_type_of(ModelConfig(20, dim=32, **parts))


def test_a_model_of_mlx_lm_is_refused():
    with pytest.raises(StoriesError, match="architecture mamba is not exported"):
        model_type_of(MlxLmConfig.of_size("mamba", "debug", 20))


def test_nothing_is_overwritten_or_left_half_written(make_run, tmp_path, monkeypatch):
    run = make_run()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").touch()
    with pytest.raises(StoriesError, match="not an empty directory"):
        export(run, tmp_path / "full")
    (tmp_path / "file").touch()
    with pytest.raises(StoriesError, match="cannot write"):
        export(run, tmp_path / "file" / "tale")
    with pytest.raises(StoriesError, match="multiple of 32"):
        export(make_run(dim=24, hidden=24), tmp_path / "tale", bits=4)

    def full(*_, **__):
        raise RuntimeError("[save_safetensors] Failed to write")

    monkeypatch.setattr(mx, "save_safetensors", full)
    with pytest.raises(StoriesError, match="Failed to write"):
        export(run, tmp_path / "tale")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "full"]


def test_the_card_is_ready_for_the_hub(make_run, tmp_path):
    from mlxstories.data.dataset import DataConfig
    from mlxstories.storage.serialize import to_dict
    from mlxstories.training.config import TrainingConfig
    from mlxstories.training.phases import PHASE_1

    recipe = {
        "data": to_dict(DataConfig(source=("/home/me/secret/tales.txt",), stories=90)),
        "phase": to_dict(PHASE_1),
        "training": to_dict(TrainingConfig()),
        "seed": 11,
        "fingerprint": "abc",
        "floor": {"nats": 0.9594, "accuracy": 0.6831},
        "parameters": 4321,
        "versions": {"mlxstories": "0.1.0", "mlx": "0.32"},
    }
    export(make_run(extra=recipe), tmp_path / "tale", bits=8)
    card = ModelCard.load(tmp_path / "tale" / "README.md")
    metadata = card.data.to_dict()
    assert metadata["library_name"] == "mlx" and metadata["pipeline_tag"] == "text-generation"
    results = {result.metric_type: result.metric_value for result in card.data.eval_results}
    assert results == {"loss": 2.0, "accuracy": 0.5}
    for fact in ("tales.txt", "90 to train on", "| all | 2.0000 | 0.9594 | 50.00 % | 68.31 % |", "Phase 1, seed 11",
                 "1,234 tokens, 7 updates", "4,321 parameters", "8 bits",
                 "before the weights were rounded"):  # fmt: skip
        assert fact in card.content
    assert "secret" not in card.content and "\n\n\n" not in card.content


def test_the_card_of_an_unfinished_run_says_what_is_known(make_run, tmp_path):
    export(make_run("gpt2", "char"), tmp_path / "tale")
    card = ModelCard.load(tmp_path / "tale" / "README.md")
    assert "## Training" not in card.content and "gpt2 shape" in card.content


@pytest.mark.parametrize(
    ("samples", "source", "prompt"),
    [
        (["从前，小猫会写字。\n后来它走了。"], ["zh"], '"从前，小猫会写字。"'),
        (['"No!" said Tom, and he went home.'], ["own"], "'\"No!\" said Tom, and'"),
        (["cut \ufffd in two"], ["own"], '"Once upon a time"'),
        ([], ["own"], '"Once upon a time"'),
        (["Long ago, there lived"], "stories", '"Once upon a time"'),
    ],
)
def test_a_prompt_to_try_begins_as_the_stories_do(make_run, tmp_path, samples, source, prompt):
    run = make_run(extra={"data": {"source": source}, "fingerprint": "abc"})
    (run.path / "result.json").write_text(json.dumps({"samples": samples}))
    assert in_shell(export(run, tmp_path / "tale")["prompt"]) == prompt
    card = (tmp_path / "tale" / "README.md").read_text("utf-8")
    (word,) = shlex.split(prompt)
    assert f"--prompt {prompt}" in card
    assert f"tokenizer({json.dumps(word, ensure_ascii=False)}," in card
