"""The most memory that this process had, TensorFlow's included, a GPU's not."""

import contextlib
import re
import resource
import sys
from pathlib import Path


def forget_peak() -> None:
    """Lets the peak be that of what follows, where the system can; of Linux alone."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak() -> float:
    """Returns the peak in MiB."""
    with contextlib.suppress(OSError):
        status = Path("/proc/self/status").read_text()
        if found := re.search(r"^VmHWM:\s*(\d+) kB", status, re.MULTILINE):
            return int(found[1]) / 1024
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, else KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20
