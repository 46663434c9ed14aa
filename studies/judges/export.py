"""Writes the judges into the package: of each the trained net, without what moves images.

Run `python export.py <name> ...` after `dvc repro`; it prints the hashes for
image_generation.py. A file has the date of its making, so another export is another file.
"""

import hashlib
import sys

import keras

from engram import models
from engram.tasks import image_generation


def main(*names: str) -> None:
    """Writes the judges of these names, from images to features and logits."""
    image_generation.JUDGES.mkdir(exist_ok=True)
    for name in names:
        path = f"runs/judge-{name}/models/seed-1.keras"
        trained = models.load("residual_cnn", "classification", path)
        moved = trained.get_layer("augmented").output
        seen = [trained.get_layer(layer).output for layer in ("mean", "logits")]
        file = image_generation.JUDGES / f"{name}.keras"
        keras.Model(moved, seen, name=f"judge_{name}").save(file)
        print(name, hashlib.sha256(file.read_bytes()).hexdigest())


if __name__ == "__main__":
    main(*sys.argv[1:])
