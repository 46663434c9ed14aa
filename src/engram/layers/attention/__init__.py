"""Attention: layers that look at a sequence, and the blocks and loops built of them."""

from engram.layers.attention.attention_rnn import AttentionRNN
from engram.layers.attention.bahdanau_attention import BahdanauAttention
from engram.layers.attention.cross_attention import CrossAttention
from engram.layers.attention.learned_positions import LearnedPositions
from engram.layers.attention.luong_attention import LuongAttention
from engram.layers.attention.self_attention import SelfAttention
from engram.layers.attention.sinusoidal_positions import SinusoidalPositions
from engram.layers.attention.transformer_decoder_block import TransformerDecoderBlock
from engram.layers.attention.transformer_encoder_block import TransformerEncoderBlock

__all__ = [
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
