"""A small language whose every next token depends on all before it, and searches of it.

`step` is a step function of `decoding.py`; the others are NumPy float64 and plain Python.
Each sentence has a table of its own, and the logits depend on three parts of the state of
different rank: a state that is not reordered with its text shows.
"""

import itertools

import numpy as np
from keras import ops

V, PLACES = 4, 101  # tokens, rows of a table
SLOPES = np.random.default_rng(5).normal(size=(2, V))
FLAGS = np.random.default_rng(6).normal(size=(3, V))


def start(batch, tokens=V, seed=0):
    """Returns state, memory and first tokens, arrays."""
    draw = np.random.default_rng(seed)
    state = {
        "place": np.zeros(batch, "int32"),
        "more": [np.zeros((batch, 2, 1), "float32"), (np.zeros((batch, 3), bool),)],
    }
    table = draw.normal(0, 1.5, (batch, PLACES, tokens)).astype("float32")
    first = draw.integers(0, tokens, batch).astype("int32")
    return state, (table, None), first


def step(tokens, state, memory, index):
    """Returns logits and state after these tokens."""
    place, (trace, (flags,)) = state["place"], state["more"]
    place = (7 * place + tokens + 1) % PLACES  # (B,)
    x = ops.cast(tokens, "float32")
    trace = trace / 2 + ops.stack([x, x * x], axis=1)[:, :, None] / 10  # (B, 2, 1)
    flags = ops.logical_xor(flags, ops.one_hot(tokens % 3, 3, dtype="bool"))  # (B, 3)
    logits = ops.take_along_axis(memory[0], place[:, None, None], axis=1)[:, 0]
    size = logits.shape[-1]
    for part, weight in ((trace[:, :, 0], SLOPES), (flags, FLAGS)):
        weight = ops.cast(weight[:, :size], "float32")
        logits = logits + ops.matmul(ops.cast(part, "float32"), weight)
    return logits, {"place": place, "more": [trace, (flags,)]}


def log_probabilities(table, first, text):
    """Returns the log probabilities `(V,)` of what follows a text; `table` `(P, V)`."""
    place, trace, flags = 0, np.zeros(2), np.zeros(3, bool)
    for token in map(int, (first, *text)):
        place = (7 * place + token + 1) % PLACES
        trace = trace / 2 + np.array([token, token * token]) / 10
        flags[token % 3] ^= True
    size = table.shape[-1]
    z = table[place].astype(float) + trace @ SLOPES[:, :size] + flags @ FLAGS[:, :size]
    return z - z.max() - np.log(np.exp(z - z.max()).sum())


def log_probability(table, first, text):
    """Returns the log probability of a text."""
    return sum(
        log_probabilities(table, first, text[:k])[token] for k, token in enumerate(text)
    )


def score(log_p, size, length_penalty):
    return log_p / ((5 + size) / 6) ** length_penalty


def ended_texts(tokens, length, end):
    """Yields every text that ends within `length` tokens."""
    others = [token for token in range(tokens) if token != end]
    for size in range(length):
        for text in itertools.product(others, repeat=size):
            yield (*text, end)


def most_probable(table, first, length, end):
    """Returns the text of the most probable token at each step."""
    text = ()
    while len(text) < length and (not text or text[-1] != end):
        text = (*text, int(np.argmax(log_probabilities(table, first, text))))
    return text


def beam(table, first, length, end, width, length_penalty):
    """Returns the best texts and their scores, best first; never stops early."""
    live, ended = [(0.0, ())], []
    for _ in range(length):
        longer = [
            (log_p + gained, (*text, token))
            for log_p, text in live
            for token, gained in enumerate(log_probabilities(table, first, text))
        ]
        longer = sorted(longer, key=lambda one: -one[0])[: 2 * width]
        ended += [
            (score(log_p, len(text), length_penalty), text)
            for log_p, text in longer[:width]
            if text[-1] == end
        ]
        ended = sorted(ended, key=lambda one: -one[0])[:width]
        live = [one for one in longer if one[1][-1] != end][:width]
    return ended or [(score(log_p, length, length_penalty), text) for log_p, text in live]


def padded(text, length):
    return np.pad(text, (0, length - len(text))).astype("int32")
