"""What differs between two versions of a file: functions and constants by name."""

import ast
import hashlib
import json
from collections import Counter
from pathlib import Path

from engram.repository import git

SHORT = 80  # letters of two values that are told
DEEPEST = 200  # commits of a file that are searched for a version
Files = dict[str, bytes]  # path -> content
Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def told(old: str, new: str) -> list[str]:
    """Returns what changed from one text of a Python module to another, in words.

    Functions, classes' methods and names are told by name, names with a plain value with
    both values. Comments, docstrings and layout do not count as code.

    Raises:
        SyntaxError: if one of them is not Python.
    """
    before, after = (_parts(ast.parse(text)) for text in (old, new))
    found = []
    for name in dict.fromkeys([*before, *after]):
        was, now = before.get(name), after.get(name)
        if was is None:
            found.append(f"{name} is new")
        elif now is None:
            found.append(f"{name} is gone")
        elif was != now:
            short = name.replace(".", "").isidentifier() and len(was + now) < SHORT
            found.append(f"{name}: {was} -> {now}" if short else f"{name} changed")
    return found or ["comments, docstrings or layout alone"]


def _parts(module: ast.Module) -> dict[str, str]:
    """Returns of each name that a module defines the code, as Python writes it."""
    parts: dict[str, str] = {}
    for node in module.body:
        _add(parts, node, "")
    return parts


def _add(parts: dict[str, str], node: ast.stmt, within: str) -> None:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        key = f"{within}{node.name}()"  # a property's getter and setter share it
        parts[key] = f"{parts[key]}\n{_code(node)}" if key in parts else _code(node)
    elif isinstance(node, ast.ClassDef):
        inner = [one for one in node.body if isinstance(one, Definition)]
        for one in inner:
            _add(parts, one, f"{within}{node.name}.")
        node.body = [one for one in node.body if one not in inner] or [ast.Pass()]
        parts[f"{within}{node.name} itself"] = _code(node)
    elif named := _named(node):
        key, value = within + named[0], ast.unparse(named[1])
        parts[key] = f"{parts[key]}, then {value}" if key in parts else value
    elif isinstance(node, ast.Import | ast.ImportFrom):
        parts["the imports"] = parts.get("the imports", "") + ast.unparse(node) + "\n"
    elif not _is_text(node):
        key = f"{within}the code outside functions"
        parts[key] = parts.get(key, "") + ast.unparse(node) + "\n"


def _named(node: ast.stmt) -> tuple[str, ast.expr] | None:
    """Returns the name and value of an assignment to one name."""
    if isinstance(node, ast.Assign) and len(node.targets) == 1:
        target = node.targets[0]
    elif isinstance(node, ast.AnnAssign):
        target = node.target
    else:
        return None
    if isinstance(target, ast.Name) and node.value is not None:
        return target.id, node.value
    return None


def _is_text(node: ast.stmt) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def _code(node: ast.stmt) -> str:
    """Returns the code of a function or class without its docstrings."""
    for one in ast.walk(node):
        if isinstance(one, Definition) and _is_text(one.body[0]):
            one.body = one.body[1:] or [ast.Pass()]
    return ast.unparse(node)


def between(old: Files, new: Files, folder: str) -> list[str]:
    """Returns what changed between two versions of a file or a folder, a line each."""
    lines = []
    for path in sorted({*old, *new}):
        name = f"{folder}/{path}" if path else folder
        if path not in old:
            lines.append(f"{name} is new")
        elif path not in new:
            lines.append(f"{name} is gone")
        elif old[path] != new[path]:
            lines.append(f"{name}: {_in_words(name, old[path], new[path])}")
    return lines


def _in_words(name: str, old: bytes, new: bytes) -> str:
    try:
        texts = old.decode(), new.decode()
    except UnicodeDecodeError:
        return f"changed, {len(old):,} bytes before and {len(new):,} now"
    if name.endswith(".py"):
        try:
            return ", ".join(told(*texts))
        except SyntaxError as error:
            return f"changed; not Python, line {error.lineno}"
    was, now = (text.splitlines() for text in texts)
    more, less = Counter(now) - Counter(was), Counter(was) - Counter(now)
    return f"changed, {more.total()} lines more and {less.total()} less"


def committed(path: Path, digest: str) -> tuple[str, Files] | None:
    """Returns a commit and its version of a file or folder that DVC knows by `digest`.

    Args:
        path: of the file or folder; a file's name among `Files` is `""`.
        digest: DVC's, an MD5, of a folder with `.dir` behind it.

    Returns:
        None if git has no such version among the last commits that touched `path`.
    """
    revisions = git(
        "log", f"-{DEEPEST}", "--format=%H", "--", path.name, folder=path.parent
    ).split()
    for revision in revisions:
        files = _files(path, revision.decode())
        if digest_of(files) == digest:
            return revision.decode(), files
    return None


def _files(path: Path, revision: str) -> Files:
    how = ("ls-tree", "-r", "-z", revision, "--", path.name)
    listed = git(*how, folder=path.parent).split(b"\0")
    files = {}
    for line in listed:
        if line:
            head, name = line.split(b"\t", 1)
            rest = name.decode().removeprefix(path.name).removeprefix("/")
            files[rest] = git(
                "cat-file", "blob", head.split()[2].decode(), folder=path.parent
            )
    return files


def read(path: Path) -> Files:
    """Returns the files as they are now, without what Python compiled."""
    if path.is_file():
        return {"": path.read_bytes()}
    return {
        file.relative_to(path).as_posix(): file.read_bytes()
        for file in sorted(path.rglob("*"))
        if file.is_file() and "__pycache__" not in file.parts
    }


def is_still(path: Path, digest: str) -> bool:
    """Returns whether a file or folder is there and is what DVC knows by `digest`."""
    return path.exists() and digest_of(read(path)) == digest


def digest_of(files: Files) -> str:
    """Returns what DVC calls these files: an MD5, of a folder that of its list."""
    md5 = {name: hashlib.md5(content).hexdigest() for name, content in files.items()}
    if list(md5) == [""]:
        return md5[""]
    listed = [{"md5": md5[name], "relpath": name} for name in sorted(md5)]
    text = json.dumps(listed, sort_keys=True)
    return hashlib.md5(text.encode()).hexdigest() + ".dir"
