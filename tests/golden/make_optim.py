"""Makes optim.npz: 100 updates of PyTorch's optimisers in float64. Run it with torch installed.

python tests/golden/make_optim.py
"""

from __future__ import annotations

from pathlib import Path
from unittest import mock

import numpy as np

PATH = Path(__file__).with_name("optim.npz")
STEPS = 100
KEPT = (1, 2, 3, 10, 50, 100)
SHAPES = {"tall": (6, 4), "wide": (3, 5), "vector": (5,), "zero": (4, 4)}  # "zero" starts at 0

# name: learning rate, constructor in torch.optim, its arguments
CASES = {
    "adamw": (1e-2, "AdamW", {"betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.1}),
    "adamw_amsgrad": (1e-2, "AdamW", {"betas": (0.9, 0.98), "weight_decay": 0.1, "amsgrad": True}),
    "adam": (1e-2, "Adam", {"betas": (0.9, 0.98), "eps": 1e-6, "weight_decay": 0.1}),
    "adam_amsgrad": (1e-2, "Adam", {"betas": (0.8, 0.999), "weight_decay": 0.1, "amsgrad": True}),
    "nadamw": (1e-2, "NAdam", {"weight_decay": 0.1, "decoupled_weight_decay": True}),
    "sgd": (1e-2, "SGD", {"momentum": 0.9, "weight_decay": 0.1}),
    "muon": (1e-2, "Muon", {"weight_decay": 0.1, "adjust_lr_fn": "match_rms_adamw"}),
}


def parameters_of(case: str) -> list[str]:
    return [name for name, shape in SHAPES.items() if case != "muon" or len(shape) == 2]


def inputs() -> dict[str, np.ndarray]:
    """Initial parameters, and gradients whose size changes over time and that are 0 now and then."""
    rng = np.random.default_rng(0)
    arrays = {}
    for name, shape in SHAPES.items():
        start = rng.standard_normal(shape) * (name != "zero")
        size = 10 ** np.sin(np.arange(STEPS) / 5).reshape(-1, *[1] * len(shape))
        gradients = size * rng.standard_normal((STEPS, *shape))
        gradients[rng.random(gradients.shape) < 0.05] = 0
        arrays[f"start/{name}"] = start.astype(np.float32)
        arrays[f"gradients/{name}"] = gradients.astype(np.float32)
    return arrays


def reference(case: str, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Parameters after each of KEPT updates, float64, by PyTorch; the rate falls linearly to half."""
    import torch

    rate, constructor, arguments = CASES[case]
    names = parameters_of(case)
    parameters = [torch.nn.Parameter(torch.tensor(arrays[f"start/{name}"]).double()) for name in names]
    optimizer = getattr(torch.optim, constructor)(parameters, lr=rate, **arguments)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - 0.5 * step / STEPS)
    kept = {name: [] for name in names}
    # PyTorch's Muon iterates in bfloat16 whatever it is given.
    with mock.patch.object(torch.Tensor, "bfloat16", torch.Tensor.clone):
        for step in range(STEPS):
            for name, parameter in zip(names, parameters, strict=True):
                parameter.grad = torch.tensor(arrays[f"gradients/{name}"][step]).double()
            optimizer.step()
            schedule.step()
            if step + 1 in KEPT:
                for name, parameter in zip(names, parameters, strict=True):
                    kept[name].append(parameter.detach().numpy().copy())
    return {f"{case}/{name}": np.stack(values) for name, values in kept.items()}


if __name__ == "__main__":
    arrays = inputs()
    results = {key: value for case in CASES for key, value in reference(case, arrays).items()}
    np.savez_compressed(PATH, **arrays, **results)
