"""Logits, loss and every gradient agree with implementations that share no code with ours."""

import json
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten

from mlxstories.model import Decoder, KVCache, ModelConfig, Transformer
from mlxstories.training.losses import cross_entropy

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "model.npz")
CONFIGS = json.loads(str(GOLDEN["configs"]))


def golden(name: str, kind: str) -> dict[str, np.ndarray]:
    prefix = f"{name}/{kind}/"
    return {key.removeprefix(prefix): GOLDEN[key] for key in GOLDEN.files if key.startswith(prefix)}


def load(name: str) -> Transformer:
    model = Transformer(ModelConfig(**CONFIGS[name]))
    model.load_weights([(key, mx.array(value)) for key, value in golden(name, "weight").items()])
    return model


def close(ours, theirs, tolerance=1e-4):
    theirs = np.asarray(theirs)
    np.testing.assert_allclose(np.array(ours), theirs, rtol=0, atol=tolerance * max(1, np.abs(theirs).max()))


@pytest.mark.parametrize("name", CONFIGS)
def test_logits_loss_and_gradients_equal_pytorchs(name):
    model = load(name)
    tokens, targets, mask = (mx.array(GOLDEN[key]) for key in ("tokens", "targets", "mask"))
    close(model(tokens), GOLDEN[f"{name}/logits"])

    def mean_loss(model):
        nats, count = cross_entropy(model(tokens), targets, mask, 0.1)
        return nats / count

    loss, gradients = nn.value_and_grad(model, mean_loss)(model)
    close(loss, GOLDEN[f"{name}/loss"], 1e-5)
    expected, gradients = golden(name, "gradient"), dict(tree_flatten(gradients))
    assert gradients.keys() == expected.keys()
    for key, gradient in gradients.items():
        close(gradient, expected[key])


@pytest.mark.parametrize("name", [name for name in CONFIGS if "encoder" not in name])
@pytest.mark.parametrize("chunks", [(12,), (1,) * 12, (5, 1, 1, 5)])
def test_the_cache_gives_the_logits_of_the_full_forward(name, chunks):
    model, tokens = load(name), mx.array(GOLDEN["tokens"])
    cache, logits, start = KVCache(model.config, len(tokens)), [], 0
    for width in chunks:
        logits.append(model(tokens[:, start : start + width], cache))
        start += width
    close(mx.concatenate(logits, axis=1), GOLDEN[f"{name}/logits"])
    assert cache.offset.item() == 12


@pytest.mark.parametrize("name", [name for name in CONFIGS if "encoder" not in name])
def test_decoding_gives_the_logits_of_the_full_forward(name):
    model, tokens = load(name), mx.array(GOLDEN["tokens"])
    cache, decoder = KVCache(model.config, len(tokens)), Decoder(model)
    first = model(tokens[:, :3], cache)
    further = [decoder(tokens[:, position], cache) for position in range(3, 12)]
    close(mx.concatenate([first, mx.stack(further, axis=1)], axis=1), GOLDEN[f"{name}/logits"])
    assert cache.offset.item() == 12


def test_llama_of_transformers_agrees():
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    theirs = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=37,
            hidden_size=32,
            num_hidden_layers=2,
            intermediate_size=40,
            num_attention_heads=4,
            rms_norm_eps=1e-5,
            tie_word_embeddings=True,
            max_position_embeddings=24,
        )
    )
    model = Transformer(ModelConfig(37, dim=32, layers=2, heads=4, hidden=40, context=24))
    names = {"embed.weight": "model.embed_tokens.weight", "norm.weight": "model.norm.weight"}
    for layer in range(2):
        block = f"model.layers.{layer}"
        for ours, name in {
            "attention.query": "self_attn.q_proj",
            "attention.key": "self_attn.k_proj",
            "attention.value": "self_attn.v_proj",
            "attention.out": "self_attn.o_proj",
            "feed_forward.gate": "mlp.gate_proj",
            "feed_forward.up": "mlp.up_proj",
            "feed_forward.down": "mlp.down_proj",
            "attention_norm": "input_layernorm",
            "feed_forward_norm": "post_attention_layernorm",
        }.items():
            names[f"blocks.{layer}.{ours}.weight"] = f"{block}.{name}.weight"
    state = dict(theirs.named_parameters())
    with torch.no_grad():
        for name, value in tree_flatten(model.parameters()):
            state[names[name]].copy_(torch.tensor(np.array(value) * (3 if value.ndim == 2 else 1)))
    model.load_weights([(ours, mx.array(state[name].detach().numpy())) for ours, name in names.items()])
    tokens = np.random.default_rng(0).integers(0, 37, (2, 24))
    logits = theirs(torch.tensor(tokens)).logits
    torch.nn.functional.cross_entropy(logits.flatten(0, 1), torch.tensor(tokens).flatten()).backward()
    ones = mx.ones(tokens.shape)
    close(model(mx.array(tokens)), logits.detach().numpy())

    def mean_loss(model):
        nats, count = cross_entropy(model(mx.array(tokens)), mx.array(tokens), ones)
        return nats / count

    _, gradients = nn.value_and_grad(model, mean_loss)(model)
    for key, gradient in tree_flatten(gradients):
        close(gradient, state[names[key]].grad.numpy())


def test_gpt2_of_transformers_agrees():
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    theirs = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(vocab_size=37, n_embd=32, n_layer=2, n_head=4, n_inner=64, n_positions=24)
    ).eval()
    config = ModelConfig(
        37, dim=32, layers=2, heads=4, context=24, norm="layer", positions="learned", feed_forward="gelu"
    )
    model = Transformer(config)
    weights = {name: 3 * np.array(value) for name, value in tree_flatten(model.parameters())}
    model.load_weights([(name, mx.array(value)) for name, value in weights.items()])
    state = dict(theirs.named_parameters())
    with torch.no_grad():
        for name, value in state.items():
            if name.endswith("bias"):
                value.zero_()
        for name, ours in {"wte": "embed", "wpe": "position", "ln_f": "norm"}.items():
            state[f"transformer.{name}.weight"].copy_(torch.tensor(weights[f"{ours}.weight"]))
        for layer in range(2):
            part = {k.removeprefix(f"blocks.{layer}."): v for k, v in weights.items()}
            qkv = np.concatenate([part[f"attention.{name}.weight"] for name in ("query", "key", "value")])
            for name, value in {
                "ln_1": part["attention_norm.weight"],
                "ln_2": part["feed_forward_norm.weight"],
                "attn.c_attn": qkv.T,
                "attn.c_proj": part["attention.out.weight"].T,
                "mlp.c_fc": part["feed_forward.up.weight"].T,
                "mlp.c_proj": part["feed_forward.down.weight"].T,
            }.items():
                state[f"transformer.h.{layer}.{name}.weight"].copy_(torch.tensor(value))
        tokens = np.random.default_rng(0).integers(0, 37, (2, 24))
        logits = theirs(torch.tensor(tokens)).logits.numpy()
    close(model(mx.array(tokens)), logits)
