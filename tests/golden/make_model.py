"""Write model.npz: logits, loss and gradients of every variant, computed by PyTorch.

Run from the repository: ``python tests/golden/make_model.py``.
"""

import dataclasses
import json
from pathlib import Path

import numpy as np
import reference
from mlx.utils import tree_flatten

from mlxstories.model import ModelConfig, Transformer

arrays, configs = {}, {}
for name, changes in reference.VARIANTS.items():
    config = ModelConfig(**reference.SHAPE, **changes)
    configs[name] = dataclasses.asdict(config)
    shapes = {key: value.shape for key, value in tree_flatten(Transformer(config).parameters())}
    weights = reference.draw_weights(shapes)
    logits, loss, gradients = reference.loss_and_gradients(configs[name], weights, 0.1)
    arrays |= {f"{name}/logits": logits, f"{name}/loss": np.float32(loss)}
    arrays |= {f"{name}/weight/{key}": value for key, value in weights.items()}
    arrays |= {f"{name}/gradient/{key}": value for key, value in gradients.items()}
arrays |= {"tokens": reference.TOKENS, "targets": reference.TARGETS, "mask": reference.MASK}
arrays["configs"] = json.dumps(configs)
np.savez_compressed(Path(__file__).parent / "model.npz", **arrays)
