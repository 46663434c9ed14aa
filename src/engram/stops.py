"""What ends a training in a way that one line tells, without a traceback."""


class Stopped(RuntimeError):
    """Says what happened, and what helps."""


class NotPossible(Stopped):
    """Something that was asked for does not go together."""
