"""The forms of `params.yaml`: the keys of each block and the kinds of their values."""
