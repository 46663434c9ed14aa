"""What a model computes, one call of a layer after the other, ready to be differentiated.

Needs Keras' TensorFlow backend. Every call has a tape of its own, so that gradients can
be scaled anew between two layers and never underflow.
"""

import contextlib
import dataclasses
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf


@dataclasses.dataclass
class Call:
    """One call of a layer.

    Attributes:
        name: the layer's name, in nested models after theirs; from the second call of a
            shared layer on with its number.
        layer: layer or operation.
        inputs: its floating tensors, each once.
        outputs: its floating tensors.
        tape: what recorded the call.
        again: computes the outputs anew.
    """

    name: str
    layer: Any
    inputs: list[tf.Tensor]
    outputs: list[tf.Tensor]
    tape: tf.GradientTape
    again: Callable[[], Any]

    @property
    def weights(self) -> list[keras.Variable]:
        """The weights that training moves."""
        return getattr(self.layer, "trainable_variables", [])


def require_tensorflow() -> None:
    """Raises RuntimeError on another backend."""
    if keras.config.backend() != "tensorflow":
        raise RuntimeError(
            "engram.gradient_flow measures with TensorFlow's tapes: set"
            f" KERAS_BACKEND=tensorflow. Received: {keras.config.backend()!r}"
        )


def record(model: keras.Model, inputs, training: bool = False) -> tuple[list[Call], Any]:
    """Returns the calls of all layers, first to last, and what the model returns.

    Args:
        model: a Sequential or Functional model; models in it are entered.
        inputs: what the model is called with.
        training: bool. What layers change about themselves then is kept; call it in a
            `keras.StatelessScope` to leave the model alone.

    Raises:
        ValueError: if the model's graph of layers is not known.
    """
    require_tensorflow()
    calls: list[Call] = []
    seen: dict[int, int] = {}

    def through(graph, given, prefix):
        def operation(op):
            def run(*args, **kwargs):
                if "training" in inspect.signature(op.call).parameters:
                    kwargs["training"] = training
                if (inner := _graph(op)) is not None:
                    return through(inner, args[0], f"{prefix}{op.name}/")
                seen[id(op)] = number = seen.get(id(op), 0) + 1
                name = prefix + op.name + (f":{number}" if number > 1 else "")
                one, result = call(op, *args, name=name, **kwargs)
                if one.outputs:  # else no gradient passes here
                    calls.append(one)
                return result

            return run

        # Keras has no public way to go through a model node by node.
        given = graph._standardize_inputs(given)
        result = graph._run_through_graph(given, operation_fn=operation)
        return result[0] if isinstance(result, list) and len(result) == 1 else result

    return calls, through(graph_of(model, inputs), inputs, "")


def call(layer, *args, name: str = "", **kwargs) -> tuple[Call, Any]:
    """Returns one call of a layer, recorded, and what the layer returned."""
    given = {id(x): x for x in keras.tree.flatten((args, kwargs)) if _floating(x)}
    inputs = list(given.values())

    def again():
        return keras.tree.map_structure(_fresh, layer(*args, **kwargs))

    with tf.GradientTape(persistent=True) as tape:
        tape.watch(inputs)
        result = again()
    outputs = [y for y in keras.tree.flatten(result) if _floating(y)]
    return Call(name, layer, inputs, outputs, tape, again), result


def graph_of(model: keras.Model, inputs=None):
    """Returns the Functional graph of a model, which is built on `inputs` if need be.

    Raises:
        ValueError: if the model has none.
    """
    if isinstance(model, keras.Sequential) and not model.built and inputs is not None:
        model(inputs)
    graph = _graph(model)
    if graph is None:
        raise ValueError(
            "`model` must be a built Sequential or Functional model, whose graph of"
            " layers Keras knows. Received:"
            f" {type(model).__name__!r} {getattr(model, 'name', '')!r}, a"
            " model whose `call` is code. Rebuild it from `keras.Input` on, or probe"
            " the models it is made of."
        )
    return graph


def _graph(model):
    if isinstance(model, keras.Sequential):
        return model._functional
    is_graph = isinstance(model, keras.Model) and hasattr(model, "operations")
    return model if is_graph else None


def _floating(x) -> bool:
    return tf.is_tensor(x) and x.dtype.is_floating


def _fresh(x):
    """Returns a tensor of its own: layers such as Dropout return the one they got."""
    if not tf.is_tensor(x):
        return x
    y = tf.identity(x)
    if (mask := getattr(x, "_keras_mask", None)) is not None:
        y._keras_mask = mask
    return y


@contextlib.contextmanager
def plainly(layer) -> Iterator[None]:
    """Has loops over time run step by step, for compiled ones have no JVP."""
    wanted = {"fused": False, "use_cudnn": False, "unroll": True}
    inner = layer._flatten_layers() if isinstance(layer, keras.Layer) else []
    found = [
        (one, switch, getattr(one, switch))
        for one in inner
        for switch in wanted
        if hasattr(one, switch)
    ]
    try:
        for one, switch, _ in found:
            setattr(one, switch, wanted[switch])
        yield
    finally:
        for one, switch, value in found:
            setattr(one, switch, value)
