"""Models for mlx-lm and Hugging Face transformers, and back."""

from mlxstories.export.model_types import MODEL_TYPES as MODEL_TYPES
from mlxstories.export.model_types import model_type_of as model_type_of
from mlxstories.export.read import import_model as import_model
from mlxstories.export.write import DTYPES as DTYPES
from mlxstories.export.write import export as export
