"""Which values a translator computes for one sentence, and which weights it has for them.

    python -m engram.anatomy runs/french-transformer --source 10 --target 10

A row is a part. Its neurons are the values that it computes for a sentence, all tokens at
once as in training, and its shape says how many: `T H D + 2 S K D`. A value counts once,
where it is computed. Sums of residuals, positions and masks do not count.

    S, T  tokens of source, target      H, K  heads, heads of keys and values
    F     features of a token           D     size per head
    M     features of a source step     U     units inside
    G     sums of a cell in a step      Z, W  states of a cell, width of its output
    V     pieces of the target
"""

import argparse
import math
from pathlib import Path
from typing import NamedTuple

from engram import translate


class Row(NamedTuple):
    """A part of a block."""

    block: str
    part: str
    shape: str  # numbers and letters, a product or a sum of products
    neurons: int
    parameters: int


class Rows(list[Row]):
    """Rows of one model; `sizes` are the numbers that letters stand for."""

    def __init__(self, **sizes: int):
        self.sizes = sizes

    def add(self, block: str, part: str, shape: str, weights=()) -> None:
        """Adds a part with the weights that it alone has."""
        terms = [term.split() for term in shape.split(" + ")]
        sizes = [[self.sizes.get(one) or int(one) for one in term] for term in terms]
        count = sum(math.prod(weight.shape) for weight in weights)
        self.append(Row(block, part, shape, sum(map(math.prod, sizes)), count))


def of_attention(layer, target: int, source: int | None = None) -> Rows:
    """Returns the parts of a built `SelfAttention`, or `CrossAttention` to a source."""
    rows = Rows(T=target, S=source or target, **_sizes(layer))
    rows.add("attention", "input", "T F" if source is None else "T F + S M")
    _attention(rows, "attention", "", layer, "T", "T" if source is None else "S")
    return rows


def of_block(block, target: int, source: int | None = None) -> Rows:
    """Returns the parts of a built Transformer block; only a decoder's has a source."""
    sizes = _sizes(block.self_attention)
    rows = Rows(T=target, S=source or target, U=block.feedforward, **sizes)
    _block(rows, block, "T")
    return rows


def of_model(model, target: int, source: int) -> Rows:
    """Returns the parts of a `Transformer` or a `Seq2Seq`, in the order of computing."""
    rows = Rows(S=source, T=target, F=model.width, V=model.target_pieces)
    rows.add("source_embedding", "", "S F", model.source_embedding.weights)
    own = [] if model.shared else model.target_embedding.weights
    (_recurrent if hasattr(model, "cell") else _stacks)(rows, model, own)
    rows.add("logits", "", "T V")  # by the weights of the embedding
    return rows


def _sizes(layer) -> dict[str, int]:
    layer.check_built("anatomy")
    features = {"F": layer.query_kernel.shape[0], "M": layer.key_kernel.shape[0]}
    return {**features, "H": layer.heads, "K": layer.kv_heads, "D": layer.size}


def _attention(rows: Rows, block: str, name: str, layer, asks: str, looks: str) -> None:
    kinds: dict[str, list] = {"projected": [], "output": [], "relative": []}
    for weight in layer.weights:
        kinds.get(weight.name.split("_")[0], kinds["projected"]).append(weight)
    projected = f"{asks} H D + 2 {looks} K D"
    rows.add(block, f"{name}queries, keys, values", projected, kinds["projected"])
    rows.add(block, f"{name}scores", f"H {asks} {looks}", kinds["relative"])
    rows.add(block, f"{name}softmax", f"H {asks} {looks}")
    rows.add(block, f"{name}weighted sum", f"{asks} H D")
    rows.add(block, f"{name}output", f"{asks} F", kinds["output"])


def _block(rows: Rows, block, steps: str) -> None:
    name, wide = block.name, f"{steps} F"
    _attention(rows, name, "self: ", block.self_attention, steps, steps)
    rows.add(name, "self: normalised", wide, block.self_norm.weights)
    if hasattr(block, "cross_attention"):
        _attention(rows, name, "cross: ", block.cross_attention, steps, "S")
        rows.add(name, "cross: normalised", wide, block.cross_norm.weights)
    rows.add(name, "net: inner", f"{steps} U", block.inner.weights)
    rows.add(name, "net: outer", wide, block.outer.weights)
    rows.add(name, "net: normalised", wide, block.feedforward_norm.weights)


def _stacks(rows: Rows, model, embedding: list) -> None:
    rows.sizes |= {"U": model.feedforward, **_sizes(model.encoder[0].self_attention)}
    for block in model.encoder:
        _block(rows, block, "S")
    if model.norm == "pre":
        rows.add("encoder_norm", "", "S F", model.encoder_norm.weights)
    rows.add("target_embedding", "", "T F", embedding)
    for block in model.decoder:
        _block(rows, block, "T")
    if model.norm == "pre":
        rows.add("decoder_norm", "", "T F", model.decoder_norm.weights)


def _recurrent(rows: Rows, model, embedding: list) -> None:
    cell, look, wide = model.decoder.cell, model.decoder.attention, model.decoder.width
    rows.sizes |= {"G": cell.kernel.shape[-1], "U": model.units, "W": wide, "M": 2 * wide}
    rows.sizes["Z"] = sum(start.units for start in model.starts)
    rows.add("encoder", "sums", "2 S G", model.encoder.weights)  # both ways
    rows.add("encoder", "states", "2 S Z")
    rows.add("starts", "", "Z", [one for start in model.starts for one in start.weights])
    rows.add("target_embedding", "", "T F", embedding)
    if model.attention == "bahdanau":
        rows.add("attention", "keys", "S U", [look.memory_kernel])
        rows.add("attention", "queries", "T U", [look.query_kernel, look.bias])
        rows.add("attention", "hidden", "T S U")
        rows.add("attention", "scores", "T S", [look.energy_kernel])
    if model.attention == "luong":
        rows.add("attention", "keys", "S W", look.weights)
        rows.add("attention", "scores", "T S")
    if look is not None:
        rows.add("attention", "softmax", "T S")
        rows.add("attention", "weighted sum", "T M")
    rows.add("decoder", "sums", "T G", cell.weights)
    rows.add("decoder", "states", "T Z")
    if look is not None:
        rows.add("decoder", "joined", "T W", [model.decoder.kernel])
    rows.add("told", "", "T F", model.told.weights)


def table(rows: Rows) -> str:
    """Returns lines in columns: of each block its sums and its parts, then all sums."""
    lines = [("block", "part", "shape", "neurons", "parameters")]
    for block in (*dict.fromkeys(row.block for row in rows), "all"):
        parts = [row for row in rows if block in (row.block, "all")]
        alone = parts[0].shape if len(parts) == 1 else ""
        neurons = sum(row.neurons for row in parts)
        parameters = sum(row.parameters for row in parts)
        lines.append((block, "", alone, f"{neurons:,}", f"{parameters:,}"))
        for row in parts if block != "all" else ():
            if row.part:
                counts = f"{row.neurons:,}", f"{row.parameters:,}"
                lines.append(("", row.part, row.shape, *counts))
    a, b, c, d, e = (max(map(len, column)) for column in zip(*lines, strict=True))
    form = f"{{:{a}}}  {{:{b}}}  {{:{c}}}  {{:>{d}}}  {{:>{e}}}"
    letters = {letter for row in rows for letter in row.shape.split()}
    sizes = [
        f"{letter} {size}" for letter, size in rows.sizes.items() if letter in letters
    ]
    return "\n".join([*(form.format(*line) for line in lines), "", ", ".join(sizes)])


def main(argv: list[str] | None = None) -> None:
    """Prints the table of a trained experiment."""
    parser = argparse.ArgumentParser("python -m engram.anatomy", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("run", type=Path, help="folder runs/<experiment> of a suite")
    parser.add_argument("--source", type=int, default=10, help="tokens of a source")
    parser.add_argument("--target", type=int, default=10, help="tokens of a target")
    given = parser.parse_args(argv)
    if min(given.source, given.target) < 1:
        parser.error("--source and --target must be at least 1")
    run = translate.trained(given.run)
    from engram import models  # after the checks: TensorFlow

    model = models.load(run.experiment["model"], "translation", run.file)
    print(table(of_model(model, given.target, given.source)))


if __name__ == "__main__":
    main()
