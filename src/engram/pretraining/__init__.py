"""Pretraining: Boltzmann machines alone, by `ContrastiveDivergence`, and in stacks.

What is asked of one machine stands beside its layer, in `engram.layers.rbm`: training,
exact and annealed likelihoods, what is watched while it learns.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engram.layers.rbm.contrastive_divergence import ContrastiveDivergence

__all__ = ["ContrastiveDivergence"]


def __getattr__(name: str):
    if name == "ContrastiveDivergence":
        from engram.layers.rbm.contrastive_divergence import ContrastiveDivergence

        return ContrastiveDivergence
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
