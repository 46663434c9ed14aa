"""The equations of attention in NumPy float64, for the layers' tests to compare with.

Row by row and head by head, and only over what a row may see.
"""

import numpy as np
from stlm_equations import weights

# Arguments of a layer with 4 heads: every form that self-attention has.
FORMS = {
    "plain": {},
    "without biases": {"use_bias": False},
    "heads of another size": {"head_dim": 3},
    "grouped heads": {"kv_heads": 2},
    "one head of keys": {"kv_heads": 1},
    "causal": {"causal": True},
    "rotary": {"rotary": True, "head_dim": 6},
    "relative": {"relative": 2},
    "relative, causal": {"relative": 2, "causal": True},
    "all at once": {
        "kv_heads": 2,
        "causal": True,
        "rotary": True,
        "relative": 3,
        "head_dim": 4,
    },
}


def self_attention(layer, x, mask=None, attention_mask=None):
    """Returns `y` and `alpha` of a SelfAttention."""
    steps = range(x.shape[1])
    order = [[s <= t or not layer.causal for s in steps] for t in steps]
    q, k, v = _project(layer, x, x)
    if layer.rotary:
        q, k = rotate(q), rotate(k)
    bias = np.zeros((layer.heads, len(steps), len(steps)))
    if layer.relative is not None:
        table, far = weights(layer)["relative_bias"], layer.relative
        for t in steps:
            for s in steps:
                if s <= t or not layer.causal:
                    bias[:, t, s] = table[:, min(max(s - t, -far), far) + far]
    return _attend(layer, q, k, v, bias, _visible(x, x, mask, attention_mask, order))


def cross_attention(layer, x, memory, memory_mask=None, attention_mask=None):
    """Returns `y` and `alpha` of a CrossAttention."""
    q, k, v = _project(layer, x, memory)
    visible = _visible(x, memory, memory_mask, attention_mask)
    return _attend(layer, q, k, v, np.zeros(layer.heads), visible)


def rotate(x):
    """Returns `(B, T, heads, D)` whose pairs, as complex numbers, are turned."""
    half = x.shape[-1] // 2
    z = x[..., :half] + 1j * x[..., half:]
    for p in range(x.shape[1]):
        for i in range(half):
            z[:, p, :, i] *= np.exp(1j * p / 10000 ** (2 * i / x.shape[-1]))
    return np.concatenate([z.real, z.imag], axis=-1)


def _project(layer, x, memory):
    w = weights(layer)
    return [
        np.einsum("btf,fhd->bthd", given, w[f"{name}_kernel"]) + w.get(f"{name}_bias", 0)
        for name, given in (("query", x), ("key", memory), ("value", memory))
    ]


def _visible(x, memory, mask, attention_mask, order=True):
    """Returns `(B, T, S)`, true where all masks let a row see a column."""
    visible = np.ones((len(x), x.shape[1], memory.shape[1]), bool) & np.asarray(order)
    if mask is not None:
        visible &= np.asarray(mask, bool)[:, None]
    return visible if attention_mask is None else visible & attention_mask


def _attend(layer, q, k, v, bias, visible):
    w = weights(layer)
    shared = layer.heads // layer.kv_heads
    batch, steps, source = visible.shape
    alpha = np.zeros((batch, layer.heads, steps, source))
    y = np.zeros((batch, steps, w["output_kernel"].shape[-1])) + w.get("output_bias", 0)
    for b in range(batch):
        for h in range(layer.heads):
            keys, values = k[b, :, h // shared], v[b, :, h // shared]
            logits = q[b, :, h] @ keys.T / np.sqrt(keys.shape[-1]) + bias[h]
            for t in range(steps):
                seen = visible[b, t]
                found = np.exp(logits[t, seen] - logits[t].max())
                alpha[b, h, t, seen] = found / found.sum()
            y[b] += alpha[b, h] @ values @ w["output_kernel"][h]
    return y, alpha
