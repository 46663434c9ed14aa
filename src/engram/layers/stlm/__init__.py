"""The short and long memory as a cell and as a layer."""
