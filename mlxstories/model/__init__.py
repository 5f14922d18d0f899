"""The transformer and what it is made of."""

from mlxstories.model.build import build_model as build_model
from mlxstories.model.build import decoder_of as decoder_of
from mlxstories.model.build import read_config as read_config
from mlxstories.model.build import shaped as shaped
from mlxstories.model.cache import KVCache as KVCache
from mlxstories.model.config import SIZES as SIZES
from mlxstories.model.config import ModelConfig as ModelConfig
from mlxstories.model.config import size_config as size_config
from mlxstories.model.decoder import Decoder as Decoder
from mlxstories.model.mlx_lm import MlxLmConfig as MlxLmConfig
from mlxstories.model.transformer import Transformer as Transformer
from mlxstories.model.transformer import block_of as block_of
from mlxstories.model.transformer import parameter_count as parameter_count
