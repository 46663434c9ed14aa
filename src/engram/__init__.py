"""Engram: reproducible Keras 3 experiments, and memory layers to reuse.

Letters for shapes, the same in every docstring and comment:

    B  batch                          N  detectors, series, nodes of a graph
    T  steps read (target steps)      P  steps predicted, the horizon
    S  source steps                   H  heads
    F  features in                    D  size per head
    U  units out                      V  visible units of an RBM; pieces of a vocabulary
    C  classes                        L  hidden (latent) units of an RBM; length of a text
    W  width of an output             M  features of a memory
"""
