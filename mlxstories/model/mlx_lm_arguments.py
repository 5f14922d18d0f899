"""Small arguments for any architecture of mlx-lm.

Every architecture has its own dataclass of arguments, made to be read from a published ``config.json``. Most of
their names recur, so a table of names gives a model of a wanted size; `mlx_lm_peculiar` says what is peculiar.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import pkgutil
import typing
from collections.abc import Callable
from types import ModuleType
from typing import Any

from mlxstories.errors import StoriesError
from mlxstories.model.mlx_lm_special_cases import PECULIAR, Size

LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "num_transformer_layers")

_NAMES: tuple[tuple[str, Callable[[Size], Any]], ...] = (
    ("vocab_size vocab_size_per_layer_input", lambda s: s.vocab_size),
    ("hidden_size n_embd d_model hidden_dim model_dim block_dim moe_hidden_size", lambda s: s.dim),
    (" ".join(LAYERS), lambda s: s.layers),
    ("num_attention_heads n_head n_heads num_heads swa_num_attention_heads", lambda s: s.heads),
    ("num_key_value_heads num_kv_heads n_kv_heads swa_num_key_value_heads", lambda s: s.heads),
    ("head_dim v_head_dim swa_head_dim swa_v_head_dim rotary_dim index_head_dim global_head_dim lightning_head_dim",
     lambda s: s.head_dim),
    ("qk_rope_head_dim qk_nope_head_dim", lambda s: s.head_dim // 2),
    ("kv_lora_rank q_lora_rank o_lora_rank laurel_rank", lambda s: max(8, s.dim // 4)),
    ("intermediate_size intermediate_size_mlp dense_intermediate_size ffn_hidden_size n_inner "
     "shared_intermediate_size shared_expert_intermediate_size", lambda s: s.hidden),
    ("moe_intermediate_size expert_ffn_hidden_size moe_shared_expert_intermediate_size", lambda s: s.hidden // 2),
    ("num_experts n_routed_experts num_local_experts moe_num_experts", lambda s: 4),
    ("num_experts_per_tok num_experts_per_token moe_topk moe_k moe_top_k", lambda s: 2),
    ("n_shared_experts num_shared_experts num_shared_expert moe_num_shared_experts", lambda s: 1),
    ("n_group topk_group n_groups num_expert_group first_k_dense_replace decoder_sparse_step layer_group_size",
     lambda s: 1),
    ("max_position_embeddings original_max_position_embeddings n_positions n_ctx block_size model_max_length "
     "max_sequence_length", lambda s: s.context),
    ("sliding_window sliding_window_size attention_window_size", lambda s: max(8, s.context // 4)),
    ("rms_norm_eps layer_norm_eps layer_norm_epsilon layernorm_epsilon norm_eps post_norm_eps", lambda s: 1e-5),
    ("rope_theta rope_local_base_freq swa_rope_theta rotary_emb_base", lambda s: 10000.0),
    ("layer_types", lambda s: ["full_attention"] * s.layers),
)  # fmt: skip


# Architectures around the text model of another module, and that module.
_INNER = {"gemma3": "gemma3_text", "gemma4": "gemma4_text", "lfm2-vl": "lfm2", "mistral3": "llama", "pixtral": "llama",
          "qwen2_vl": "qwen2", "qwen3_vl": "qwen3", "qwen3_vl_moe": "qwen3_moe"}  # fmt: skip


def architecture(name: str) -> ModuleType:
    """The module of mlx-lm that defines an architecture.

    Raises:
        StoriesError: mlx-lm has none of this name, or cannot import it.
    """
    module = None
    if name in architectures():  # a configuration's word alone imports nothing
        try:
            module = importlib.import_module(f"mlx_lm.models.{name}")
        # olmo ends the process where a package of its own is missing
        except (Exception, SystemExit) as error:
            raise StoriesError(f"mlx-lm cannot import its architecture {name}: {error}.") from error
    if not (hasattr(module, "Model") and hasattr(module, "ModelArgs")):
        known = [other for other in architectures() if other[:3] == name[:3]] or ["llama", "qwen3", "mamba2"]
        raise StoriesError(f"mlx-lm has no architecture {name!r}; there are {', '.join(known)} and more.")
    return module


def architectures() -> list[str]:
    """The names of mlx-lm's model files, found without importing it, which takes seconds; a few define only parts."""
    folders = importlib.util.find_spec("mlx_lm").submodule_search_locations
    return sorted(module.name for module in pkgutil.iter_modules([f"{folder}/models" for folder in folders]))


def small_arguments(name: str, size: Size) -> dict[str, Any]:
    """Arguments of the architecture ``name`` for a model of about this size, in JSON values.

    Raises:
        StoriesError: mlx-lm has no such architecture.
    """
    module = architecture(name)
    values = {other: value(size) for names, value in _NAMES for other in names.split()}
    values |= {"model_type": name} | PECULIAR.get(name, lambda size: {})(size)
    arguments = _filled(module.ModelArgs, values)
    if "text_config" in {field.name for field in dataclasses.fields(module.ModelArgs)}:
        inner = architecture(_INNER[name]).ModelArgs if name in _INNER else _text_arguments(module)
        text = _filled(inner, values) if inner else values
        arguments["text_config"] = {**text, "model_type": _INNER.get(name, name)}
    return arguments


def _text_arguments(module: ModuleType) -> type | None:
    """The dataclass of a module that describes its text model."""
    for name in ("TextArgs", "TextConfig", "TextModelArgs"):
        if hasattr(module, name):
            return getattr(module, name)
    return None


def _filled(arguments: type, values: dict[str, Any]) -> dict[str, Any]:
    """The fields of a dataclass that ``values`` names, and what else it cannot do without."""
    plain = {bool: False, int: 2, float: 1.0, str: "", list: [], dict: {}}
    filled, hints = {}, typing.get_type_hints(arguments)
    for field in dataclasses.fields(arguments):
        required = field.default is field.default_factory is dataclasses.MISSING
        if field.name in values:
            filled[field.name] = values[field.name]
        elif required and field.name != "text_config":
            filled[field.name] = plain.get(typing.get_origin(hints[field.name]) or hints[field.name])
    return filled
