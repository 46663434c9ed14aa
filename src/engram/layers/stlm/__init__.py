"""A short and a long memory: cell and layer, over images, and solved in parallel."""
