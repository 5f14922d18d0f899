"""The transformer and what it is made of."""

from mlxstories.model.cache import KVCache as KVCache
from mlxstories.model.config import SIZES as SIZES
from mlxstories.model.config import ModelConfig as ModelConfig
from mlxstories.model.config import size_config as size_config
from mlxstories.model.decoder import Decoder as Decoder
from mlxstories.model.transformer import Transformer as Transformer
from mlxstories.model.transformer import parameter_count as parameter_count
