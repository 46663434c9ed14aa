"""Fashion-MNIST: 70,000 pictures of clothes, 28 x 28 pixels, from TFDS' catalogue."""

import tensorflow_datasets as tfds


def build(**kind) -> tfds.core.DatasetBuilder:
    """Returns the catalogue's builder, with the splits `train` and `test`.

    Args:
        **kind: of the TFDS builder, such as `data_dir`.
    """
    return tfds.builder("fashion_mnist", **kind)
