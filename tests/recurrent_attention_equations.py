"""Attention in a recurrent decoder in NumPy float64, for its tests to compare with."""

import numpy as np
from keras import ops, tree


def weights(layer):
    """Returns a layer's own weights by name, in float64."""
    return {w.name: np.asarray(w.value, np.float64) for w in layer.weights}


def draw_weights(layer):
    """Gives a built layer weights of which none is zero."""
    draw = np.random.default_rng(1)
    layer.set_weights([draw.normal(0, 0.5, weight.shape) for weight in layer.weights])
    return layer


def look(energies, memory, memory_mask=None):
    """Returns context and alpha; each row by itself, over the steps that it may see."""
    alpha = np.zeros_like(energies)
    for row, energy in enumerate(energies):
        seen = np.ones(len(energy), bool) if memory_mask is None else memory_mask[row]
        grown = np.exp(energy[seen])
        alpha[row, seen] = grown / grown.sum()
    return np.einsum("bs,bsm->bm", alpha, memory), alpha


def energies(attention, query, memory):
    """Returns the energies `(B, S)` of a BahdanauAttention or a LuongAttention."""
    w = weights(attention)
    found = np.zeros(memory.shape[:2])
    for b, s in np.ndindex(*found.shape):
        q, k = query[b], memory[b, s]
        score = getattr(attention, "score", "concat")
        if score == "concat":
            z = q @ w["query_kernel"] + k @ w["memory_kernel"] + w.get("bias", 0)
            found[b, s] = w["energy_kernel"] @ np.tanh(z)
        else:
            found[b, s] = q @ (k if score == "dot" else k @ w["memory_kernel"])
    return found


def read(cell, x, states):
    """Returns output and states of a Keras cell; its equation is not tested here."""
    h, new = cell(ops.convert_to_tensor(x), tree.map_structure(np.asarray, states))
    flat = [np.asarray(one) for one in tree.flatten(new)]
    return np.asarray(h), tree.pack_sequence_as(states, flat)


def decode(layer, x, memory, memory_mask=None, mask=None, states=None):
    """Returns `y` `(B, T, W)`, alpha `(B, T, S)` and the cell's last states."""
    batch, steps, _ = x.shape
    if states is None:
        states = tree.map_structure(np.asarray, layer.initial(batch)[0])
    y = np.zeros((batch, layer.width))
    found, alphas = [], []
    for t in range(steps):
        counts = np.ones((batch, 1), bool) if mask is None else mask[:, t : t + 1]
        new_y, alpha, new = _step(layer, x[:, t], y, states, memory, memory_mask)
        y = np.where(counts, new_y, y)
        pick = lambda a, b, counts=counts: np.where(counts, a, b)  # noqa: E731
        states = tree.map_structure(pick, new, states)
        found.append(y)
        alphas.append(alpha * counts)
    return np.stack(found, axis=1), np.stack(alphas, axis=1), states


def _step(layer, x, y, states, memory, memory_mask):
    """Returns `y`, alpha and the cell's states, as the docstring of the layer says."""
    attention, cell = layer.attention, layer.cell
    feeding = layer.input_feeding
    kernel = np.asarray(layer.kernel.value, np.float64)

    def ask(query):
        return look(energies(attention, query, memory), memory, memory_mask)

    if type(attention).__name__ == "BahdanauAttention":
        top = states[-1] if hasattr(cell, "cells") else states
        context, alpha = ask(tree.flatten(top)[0])
        h, states = read(cell, np.hstack([x, context]) if feeding else x, states)
    else:
        h, states = read(cell, np.hstack([x, y]) if feeding else x, states)
        context, alpha = ask(h)
    return np.tanh(np.hstack([context, h]) @ kernel), alpha, states
