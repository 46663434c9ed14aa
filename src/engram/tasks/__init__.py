"""Tasks: what a kind of problem needs, in the order of the flow.

Each task is a module with four functions: `prepare`, `batches`, `evaluate`, `figures`.
"""

from types import ModuleType


def task(word: str) -> ModuleType:
    """Returns the module of the task `word`; loads that module alone."""
    if word == "forecasting":
        from engram.tasks import forecasting

        return forecasting
    raise ValueError(f"`task` must be 'forecasting'. Received: {word!r}")
