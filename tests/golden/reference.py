"""The transformer written a second time, in PyTorch's elementary operations and loops over positions."""

import math

import numpy as np
import torch

VARIANTS = {
    "llama": {},
    "gpt2": {"norm": "layer", "positions": "learned", "feed_forward": "gelu"},
    "relu2": {"positions": "sinusoidal", "feed_forward": "relu2", "tied": False},
    "layer rope relu2": {"norm": "layer", "feed_forward": "relu2"},
    "rms learned swiglu": {"positions": "learned", "tied": False},
    "layer sinusoidal gelu": {"norm": "layer", "positions": "sinusoidal", "feed_forward": "gelu"},
    "qk norm": {"qk_norm": True, "feed_forward": "gelu"},
    "packed": {"separator": 0},
    "packed learned": {"separator": 0, "positions": "learned", "tied": False, "qk_norm": True},
    "packed sinusoidal": {"separator": 0, "positions": "sinusoidal"},
    "encoder": {"arch": "encoder"},
    "packed encoder": {"arch": "encoder", "separator": 0, "positions": "learned"},
}
SHAPE = {"vocab_size": 11, "dim": 12, "layers": 2, "heads": 2, "hidden": 8, "context": 16}
TOKENS = np.array([[0, 3, 4, 9, 5, 0, 6, 7, 3, 0, 5, 8], [5, 4, 3, 0, 10, 10, 2, 1, 3, 4, 6, 0]])
TARGETS = np.roll(TOKENS, -1, axis=1)
MASK = (np.arange(12) < np.array([[11], [9]])).astype(np.float32)


def draw_weights(shapes: dict[str, tuple]) -> dict[str, np.ndarray]:
    """Weights large enough for every part to matter, drawn name by name."""
    rng = np.random.default_rng(7)
    return {
        name: (("norm" in name and name.endswith("weight")) + 0.4 * rng.standard_normal(shape)).astype("f4")
        for name, shape in sorted(shapes.items())
    }


def loss_and_gradients(config, weights, smoothing=0.0):
    """Logits [B, T, V], mean loss, and the gradient of every weight, as numpy arrays."""
    weights = {k: torch.tensor(v, requires_grad=True) for k, v in weights.items()}
    logits = forward(config, weights, torch.tensor(TOKENS))
    losses = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), torch.tensor(TARGETS).flatten(), reduction="none", label_smoothing=smoothing
    )
    mask = torch.tensor(MASK).flatten()
    loss = (losses * mask).sum() / mask.sum()
    loss.backward()
    return (
        logits.detach().numpy(),
        loss.item(),
        {name: weight.grad.numpy() for name, weight in weights.items()},
    )


def forward(config, weights, tokens):
    story, place = boundaries(config, tokens)
    x = weights["embed.weight"][tokens]
    if config["positions"] == "learned":
        x = x + weights["position.weight"][place]
    if config["positions"] == "sinusoidal":
        x = x * math.sqrt(config["dim"]) + sinusoid(place, config["dim"])
    for n in range(config["layers"]):
        part = {k.removeprefix(f"blocks.{n}."): v for k, v in weights.items() if k.startswith(f"blocks.{n}.")}
        x = x + attention(config, part, norm(config, part, "attention_norm", x), story)
        x = x + feed_forward(config, part, norm(config, part, "feed_forward_norm", x))
    x = norm(config, weights, "norm", x)
    return x @ weights["embed.weight" if config["tied"] else "head_projection.weight"].T


def boundaries(config, tokens):
    story, place = torch.zeros_like(tokens), torch.zeros_like(tokens)
    for row in range(tokens.shape[0]):
        number = count = 0
        for t, token in enumerate(tokens[row].tolist()):
            if token == config["separator"]:
                number, count = number + 1, 0
            story[row, t], place[row, t] = number, count
            count += 1
    return story, place


def sinusoid(place, dim):
    table = torch.zeros(*place.shape, dim)
    for i in range(dim // 2):
        table[..., i] = torch.sin(place / 10000 ** (2 * i / dim))
        table[..., dim // 2 + i] = torch.cos(place / 10000 ** (2 * i / dim))
    return table


def norm(config, weights, name, x):
    if config["norm"] == "rms":
        return x / torch.sqrt((x**2).mean(-1, keepdim=True) + 1e-5) * weights[f"{name}.weight"]
    x = x - x.mean(-1, keepdim=True)
    return (
        x / torch.sqrt((x**2).mean(-1, keepdim=True) + 1e-5) * weights[f"{name}.weight"]
        + weights[f"{name}.bias"]
    )


def rotate(x):
    """Each head's pairs (i, i + D/2H) turn by t / 10000^(2i / (D/H))."""
    half = x.shape[-1] // 2
    angle = torch.arange(x.shape[1])[:, None] / 10000 ** (torch.arange(half) / half)
    a, b = x[..., :half], x[..., half:]
    return torch.cat(
        [a * torch.cos(angle) - b * torch.sin(angle), a * torch.sin(angle) + b * torch.cos(angle)], -1
    )


def attention(config, weights, x, story):
    width = config["dim"] // config["heads"]
    time = torch.arange(x.shape[1])
    seen = torch.ones(x.shape[0], len(time), len(time), dtype=torch.bool)
    if config["arch"] == "decoder":
        seen = seen & (time[None, :] <= time[:, None])
    if config["separator"] is not None:
        seen = seen & (story[:, :, None] == story[:, None, :])
    mixed = []
    for head in range(config["heads"]):
        part = slice(head * width, (head + 1) * width)
        q, k, v = (x @ weights[f"attention.{name}.weight"][part].T for name in ("query", "key", "value"))
        if config["qk_norm"]:
            q, k = (y / torch.sqrt((y**2).mean(-1, keepdim=True) + 1e-5) for y in (q, k))
        if config["positions"] == "rope":
            q, k = rotate(q), rotate(k)
        scores = (q @ k.transpose(1, 2) / math.sqrt(width)).masked_fill(~seen, -torch.inf)
        mixed.append(torch.softmax(scores, -1) @ v)
    return torch.cat(mixed, -1) @ weights["attention.out.weight"].T


def feed_forward(config, weights, x):
    up = x @ weights["feed_forward.up.weight"].T
    if config["feed_forward"] == "swiglu":
        gate = x @ weights["feed_forward.gate.weight"].T
        hidden = gate / (1 + torch.exp(-gate)) * up
    elif config["feed_forward"] == "gelu":
        hidden = 0.5 * up * (1 + torch.tanh(math.sqrt(2 / math.pi) * (up + 0.044715 * up**3)))
    else:
        hidden = torch.relu(up) ** 2
    return hidden @ weights["feed_forward.down.weight"].T
