"""What a stage says on the way, kept for the record of its run."""

import contextlib
import signal
import sys
import traceback
from collections.abc import Iterator
from typing import TextIO


class _Both:
    """A stream that writes to another one and to a transcript."""

    def __init__(self, stream, kept: TextIO):
        self._stream, self._kept = stream, kept

    def write(self, text: str) -> int:
        self._kept.write(text)
        return self._stream.write(text)

    def __getattr__(self, name: str):
        return getattr(self._stream, name)


@contextlib.contextmanager
def kept(text: TextIO) -> Iterator[None]:
    """Writes to `text`, too, what is printed inside, and the traceback at its end."""
    with (
        contextlib.redirect_stdout(_Both(sys.stdout, text)),
        contextlib.redirect_stderr(_Both(sys.stderr, text)),
    ):
        try:
            yield
        except BaseException as error:
            if not was_asked(error):
                text.write(traceback.format_exc())
            raise


def was_asked(error: BaseException) -> bool:
    """Returns whether an error is the end of a process that was asked to end."""
    return isinstance(error, SystemExit) and error.code == 128 + signal.SIGTERM


def read(text: TextIO) -> str:
    """Returns what was kept; of a line that was drawn over, a bar's, the last state."""
    text.seek(0)
    lines = text.read().replace("\r\n", "\n").split("\n")
    return "\n".join(line.rstrip("\r").split("\r")[-1] for line in lines)
