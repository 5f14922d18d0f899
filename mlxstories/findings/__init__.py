"""The words of every diagnosis: the causes, the findings that name them, and which finding explains which."""

from mlxstories.findings.accepted import acceptable, accepted
from mlxstories.findings.causes import CATALOGUE, CAUSES, Cause, cause_of
from mlxstories.findings.finding import ERROR, NOTE, WARNING, Finding
from mlxstories.findings.folding import fold
from mlxstories.findings.place import Place

__all__ = [
    "CATALOGUE",
    "CAUSES",
    "ERROR",
    "NOTE",
    "WARNING",
    "Cause",
    "Finding",
    "Place",
    "acceptable",
    "accepted",
    "cause_of",
    "fold",
]
