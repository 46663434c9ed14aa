"""Tasks: what a kind of problem needs, in the order of the flow.

Each task is a module with four functions: `prepare`, `batches`, `evaluate`, `figures`,
and perhaps a fifth, `watch`, that looks at a model between epochs.
"""

from types import ModuleType


def task(word: str) -> ModuleType:
    """Returns the module of the task `word`; loads that module alone."""
    if word == "forecasting":
        from engram.tasks import forecasting

        return forecasting
    if word == "sequences":
        from engram.tasks import sequences

        return sequences
    if word == "video":
        from engram.tasks import video

        return video
    if word == "density":
        from engram.tasks import density

        return density
    if word == "classification":
        from engram.tasks import classification

        return classification
    if word == "reconstruction":
        from engram.tasks import reconstruction

        return reconstruction
    if word == "translation":
        from engram.tasks import translation

        return translation
    if word == "generation":
        from engram.tasks import generation

        return generation
    if word == "image_generation":
        from engram.tasks import image_generation

        return image_generation
    raise ValueError(f"`task` must be a module of engram.tasks. Received: {word!r}")
