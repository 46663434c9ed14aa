"""The equations of a Transformer in NumPy float64, for its tests to compare with."""

import attention_equations
import numpy as np
from scipy.special import erf
from stlm_equations import weights

ACTIVATIONS = {
    "relu": lambda x: np.maximum(x, 0),
    "gelu": lambda x: x * (1 + erf(x / np.sqrt(2))) / 2,
}
# Arguments of a block with 4 heads and 8 features.
FORMS = {
    "post": {},
    "pre": {"norm": "pre"},
    "post, gelu": {"activation": "gelu", "layer_norm_epsilon": 1e-2},
    "pre, all at once": {
        "norm": "pre",
        "activation": "gelu",
        "rotary": True,
        "relative": 3,
        "head_dim": 4,
        "kv_heads": 2,
    },
}


def encoder_block(block, x, mask=None):
    """Returns `y` and `alpha` of a TransformerEncoderBlock."""
    x, alpha = _look_at_itself(block, x, mask)
    return _feed(block, x), alpha


def decoder_block(block, x, memory, memory_mask=None, mask=None):
    """Returns `y`, `alpha` over the target and `alpha` over the memory."""

    def look(x):
        layer = block.cross_attention
        return attention_equations.cross_attention(layer, x, memory, memory_mask)

    x, back = _look_at_itself(block, x, mask)
    x, across = _around(block, block.cross_norm, look, x)
    return _feed(block, x), back, across


def sinusoids(steps, features):
    """Returns the positions' waves `(steps, F)`, number by number."""
    table = np.zeros((steps, features))
    for t in range(steps):
        for i in range(features // 2):
            angle = t / 10000 ** (2 * i / features)
            table[t, 2 * i], table[t, 2 * i + 1] = np.sin(angle), np.cos(angle)
    return table


def _look_at_itself(block, x, mask):
    def look(x):
        return attention_equations.self_attention(block.self_attention, x, mask)

    return _around(block, block.self_norm, look, x)


def _feed(block, x):
    inner, outer = weights(block.inner), weights(block.outer)
    act = ACTIVATIONS[block.activation]

    def feed(x):
        hidden = act(x @ inner["kernel"] + inner["bias"])
        return hidden @ outer["kernel"] + outer["bias"], None

    return _around(block, block.feedforward_norm, feed, x)[0]


def _around(block, norm, sublayer, x):
    def normal(x):
        w, centred = weights(norm), x - x.mean(-1, keepdims=True)
        spread = np.sqrt(centred.var(-1, keepdims=True) + block.layer_norm_epsilon)
        return centred / spread * w["gamma"] + w["beta"]

    if block.norm == "post":
        y, alpha = sublayer(x)
        return normal(x + y), alpha
    y, alpha = sublayer(normal(x))
    return x + y, alpha
