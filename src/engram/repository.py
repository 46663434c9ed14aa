"""Where the repository is, and in which state: what relative places count from."""

import os
import platform
import subprocess
from pathlib import Path

# What results follow from.
INPUTS = ("src", "pipeline", "*.yaml", "*.toml", "requirements.lock")


def root() -> Path:
    """Returns the repository's folder: `$DVC_ROOT`, or the nearest one with `.dvc`.

    DVC sets `DVC_ROOT` for every stage, also for one that runs in a temporary clone
    (`dvc exp run --temp`), where it names the repository and not the clone.
    """
    return Path(os.environ["DVC_ROOT"]) if "DVC_ROOT" in os.environ else here()


def here() -> Path:
    """Returns the nearest folder with `.dvc`, whose code runs.

    Of an experiment in a temporary clone that is the clone.
    """
    for folder in (Path.cwd(), *Path.cwd().parents):
        if (folder / ".dvc").is_dir():
            return folder
    return Path(os.environ.get("DVC_ROOT", Path.cwd()))


def resolve(path: str | Path) -> Path:
    """Returns `path`, which counts from the repository's folder if it is relative."""
    return (root() / Path(path).expanduser()).resolve()


def git_state() -> dict[str, str]:
    """Returns `commit` and `dirty`: what of the code differs from that commit.

    `dirty` lists the changed files among code, params and stages. Outputs that DVC
    rewrites (`dvc.lock`, `results/`) do not count: they follow from the others.
    """
    commit = _git("rev-parse", "HEAD") or "none"
    dirty = _git("status", "--porcelain", "-z", "--no-renames", "--", *INPUTS)
    files = sorted(entry[3:] for entry in dirty.split("\0") if entry)  # "XY name"
    return {"commit": commit, "dirty": ", ".join(files) or "no"}


def changes() -> str:
    """Returns what differs from the last commit, as a patch, new files among it."""
    listed = _git("ls-files", "--others", "--exclude-standard", "-z", "--", *INPUTS)
    new = [file for file in listed.split("\0") if file]
    parts = [_git("diff", "HEAD", "--binary", "--no-color", "--", *INPUTS)]
    parts += [
        _git("diff", "--no-index", "--binary", "--no-color", "/dev/null", file, fine=1)
        for file in new
    ]
    return "".join(f"{part}\n" for part in parts if part)


def commit_of(file: Path, text: str) -> str:
    """Returns the commit that brought `text` into a file; nothing if none did."""
    told = _git("log", "--format=%H", f"-S{text}", "--", str(file))
    return told.split("\n")[-1]


def has(commit: str) -> bool:
    """Returns whether git has a commit."""
    return bool(_git("rev-parse", "--verify", "--quiet", f"{commit}^{{commit}}"))


def at(commit: str, path: str) -> bytes:
    """Returns a file of the repository as a commit has it; nothing if it has none."""
    command = ["git", "show", f"{commit}:{path}"]
    done = subprocess.run(command, cwd=here(), capture_output=True)
    return done.stdout if done.returncode == 0 else b""


def processor() -> str:
    """Returns the name of this machine's processor."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if "model name" in line]
    return names[0] if names else platform.processor()


def _git(*arguments: str, fine: int = 0) -> str:
    """Returns what git says; nothing if it fails, that is, ends above `fine`."""
    try:
        answer = subprocess.run(
            ["git", *arguments],
            cwd=here(),
            capture_output=True,
            text=True,
            errors="replace",
            timeout=30,
        )
    except (OSError, subprocess.TimeoutExpired):  # no git, or one that hangs
        return ""
    return answer.stdout.rstrip("\n") if answer.returncode <= fine else ""
