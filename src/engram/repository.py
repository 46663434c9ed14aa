"""Where the repository is, and in which state: what relative places count from."""

import os
import platform
import subprocess
from pathlib import Path

# What results follow from.
INPUTS = ("src", "pipeline", "*.yaml", "*.toml", "requirements.lock")

LARGE = 1_000_000  # bytes of a new file that no patch has


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


def suite(folder: Path) -> str:
    """Returns the name of the suite in a folder: `"tour"`, or its path below the code."""
    folder, code = folder.absolute(), here().absolute()
    below = folder.relative_to(code) if folder.is_relative_to(code) else Path()
    return "tour" if below == Path() else below.as_posix()


def changes() -> bytes:
    """Returns what differs from the last commit, as a patch, new files among it.

    It can be applied by `git apply`. Files above `LARGE` bytes are named and left out.
    """
    plain = ["--binary", "--no-color", "--no-ext-diff", "--no-textconv"]
    plain += ["--src-prefix=a/", "--dst-prefix=b/"]
    listed = _git("ls-files", "--others", "--exclude-standard", "-z", "--", *INPUTS)
    parts = [git("diff", *plain, "HEAD", "--", *INPUTS)]
    for name in (name for name in listed.split("\0") if name):
        if (here() / name).stat().st_size > LARGE:
            parts.append(f"# left out, too large: {name}\n".encode())
            continue
        parts.append(git("diff", *plain, "--no-index", "/dev/null", name, fine=1))
    return b"".join(parts)


def is_shallow() -> bool:
    """Returns whether git has the last commits only, as after `git clone --depth 1`."""
    return _git("rev-parse", "--is-shallow-repository") == "true"


def commit_of(file: Path, text: str) -> str:
    """Returns the commit that brought `text` into a file; nothing if none is known to."""
    if is_shallow():
        return ""
    told = _git("log", "--format=%H", f"-S{text}", "--", str(file))
    return told.split("\n")[-1]


def has(commit: str) -> bool:
    """Returns whether git has a commit."""
    return bool(_git("rev-parse", "--verify", "--quiet", f"{commit}^{{commit}}"))


def at(commit: str, path: str) -> bytes | None:
    """Returns a file as a commit has it, its path counting from the code's folder."""
    found = git("show", f"{commit}:./{path}")
    return found or None


def processor() -> str:
    """Returns the name of this machine's processor."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if "model name" in line]
    return names[0] if names else platform.processor()


def _git(*arguments: str) -> str:
    """Returns what git says; nothing if it fails."""
    return git(*arguments).decode(errors="replace").rstrip("\n")


def git(*arguments: str, folder: Path | None = None, fine: int = 0) -> bytes:
    """Returns what git says in a folder, the code's if none is named.

    Nothing if it fails, that is, ends above `fine`.
    """
    try:
        answer = subprocess.run(
            ["git", *arguments], cwd=folder or here(), capture_output=True, timeout=30
        )
    except (OSError, subprocess.TimeoutExpired):  # no git, or one that hangs
        return b""
    return answer.stdout if answer.returncode <= fine else b""
