"""Restricted Boltzmann machines: energy, layer, training, likelihood, unrolling."""
