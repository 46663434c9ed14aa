"""Layers to reuse in any Keras 3 model, on any backend.

Each layer's module is loaded when its name is first asked for.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engram.layers.stlm_cell import STLMCell

__all__ = ["STLMCell"]


def __getattr__(name: str):
    if name == "STLMCell":
        from engram.layers.stlm_cell import STLMCell

        return STLMCell
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
