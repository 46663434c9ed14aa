"""Pretraining: Boltzmann machines, alone and in stacks, and how good they are."""
