"""Models for mlx-lm and Hugging Face transformers, and back."""

from mlxstories.export.read import import_model as import_model
from mlxstories.export.shapes import SHAPES as SHAPES
from mlxstories.export.shapes import shape_of as shape_of
from mlxstories.export.write import DTYPES as DTYPES
from mlxstories.export.write import export as export
