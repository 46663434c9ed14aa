"""How gradients travel through a model: measured layer by layer, beside the theory.

`GradientFlow` watches a `fit`, `probe` looks at a model once, `theory` says what to
expect. What is measured needs Keras' TensorFlow backend; `theory` needs NumPy alone.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engram.gradient_flow.callback import GradientFlow
    from engram.gradient_flow.report import probe

__all__ = ["GradientFlow", "probe"]


def __getattr__(name: str):
    if name == "GradientFlow":
        from engram.gradient_flow.callback import GradientFlow

        return GradientFlow
    if name == "probe":
        from engram.gradient_flow.report import probe

        return probe
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
