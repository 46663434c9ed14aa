"""Layers to reuse in any Keras 3 model, on any backend.

Each layer's module is loaded when its name is first asked for.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engram.layers.attention import (
        AttentionRNN,
        BahdanauAttention,
        CrossAttention,
        LearnedPositions,
        LuongAttention,
        SelfAttention,
        SinusoidalPositions,
        TransformerDecoderBlock,
        TransformerEncoderBlock,
    )
    from engram.layers.augmentation import Augmentation
    from engram.layers.rbm.rbm import RBM
    from engram.layers.rezero import ReZero
    from engram.layers.stlm.conv_stlm import ConvSTLM1D, ConvSTLM2D, ConvSTLM3D
    from engram.layers.stlm.parallel_stlm import ParallelSTLM
    from engram.layers.stlm.stlm import STLM
    from engram.layers.stlm.stlm_cell import STLMCell

__all__ = [
    "Augmentation",
    "RBM",
    "ReZero",
    "STLM",
    "ConvSTLM1D",
    "ConvSTLM2D",
    "ConvSTLM3D",
    "ParallelSTLM",
    "STLMCell",
    "AttentionRNN",
    "BahdanauAttention",
    "CrossAttention",
    "LearnedPositions",
    "LuongAttention",
    "SelfAttention",
    "SinusoidalPositions",
    "TransformerDecoderBlock",
    "TransformerEncoderBlock",
]


def __getattr__(name: str):
    if name == "Augmentation":
        from engram.layers.augmentation import Augmentation

        return Augmentation
    if name == "RBM":
        from engram.layers.rbm.rbm import RBM

        return RBM
    if name == "ReZero":
        from engram.layers.rezero import ReZero

        return ReZero
    if name == "STLM":
        from engram.layers.stlm.stlm import STLM

        return STLM
    if name == "STLMCell":
        from engram.layers.stlm.stlm_cell import STLMCell

        return STLMCell
    if name == "ParallelSTLM":
        from engram.layers.stlm.parallel_stlm import ParallelSTLM

        return ParallelSTLM
    if name in ("ConvSTLM1D", "ConvSTLM2D", "ConvSTLM3D"):
        from engram.layers.stlm import conv_stlm

        return getattr(conv_stlm, name)
    if name in __all__:
        from engram.layers import attention

        return getattr(attention, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
