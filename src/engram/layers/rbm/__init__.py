"""Restricted Boltzmann machine: its energy, and the layer."""
