"""Where the repository is, and in which state: what relative places count from."""

import os
import platform
import subprocess
from pathlib import Path


def root() -> Path:
    """Returns the repository's folder: `$DVC_ROOT`, or the nearest one with `.dvc`.

    DVC sets `DVC_ROOT` for every stage, also for one that runs in a temporary clone
    (`dvc exp run --temp`), where it names the repository and not the clone.
    """
    if "DVC_ROOT" in os.environ:
        return Path(os.environ["DVC_ROOT"])
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / ".dvc").is_dir():
            return folder
    return here


def resolve(path: str | Path) -> Path:
    """Returns `path`, which counts from the repository's folder if it is relative."""
    return (root() / Path(path).expanduser()).resolve()


def git_state() -> dict[str, str]:
    """Returns `commit` and `dirty`: what of the code differs from that commit.

    `dirty` lists the changed files among code, params and stages. Outputs that DVC
    rewrites (`dvc.lock`, `results/`) do not count: they follow from the others.
    """
    commit = _git("rev-parse", "HEAD") or "none"
    inputs = ["src", "pipeline", "*.yaml", "*.toml", "requirements.lock"]
    dirty = _git("status", "--porcelain", "-z", "--no-renames", "--", *inputs)
    files = sorted(entry[3:] for entry in dirty.split("\0") if entry)  # "XY name"
    return {"commit": commit, "dirty": ", ".join(files) or "no"}


def processor() -> str:
    """Returns the name of this machine's processor."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if "model name" in line]
    return names[0] if names else platform.processor()


def _git(*arguments: str) -> str:
    try:
        answer = subprocess.run(
            ["git", *arguments], cwd=root(), capture_output=True, text=True, timeout=30
        )
    except (OSError, subprocess.TimeoutExpired):  # no git, or one that hangs
        return ""
    return answer.stdout.rstrip() if answer.returncode == 0 else ""
