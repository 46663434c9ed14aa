"""One short word for all that a stage's result follows from."""

import hashlib
import json
from pathlib import Path
from typing import Any

from engram import code_changes


def of(stage: str, *more: Any) -> str | None:
    """Returns 12 letters that are others when the stage's code or data is, or `more`.

    Prepared data is known by its `spec.json`, which has a fingerprint of the rest. None
    where DVC knows of no stages.

    Args:
        stage: such as `"train@traffic-gru"`, of the `dvc.yaml` in this folder.
        *more: what JSON can hold, such as the stage's params.
    """
    from dvc.exceptions import NotDvcRepoError
    from dvc.repo import Repo

    if not Path("dvc.yaml").is_file():
        return None
    try:
        deps = Repo().stage.load_one("dvc.yaml", stage).deps
    except NotDvcRepoError:
        return None
    files = {
        str(dep.def_path): _digest(Path(dep.fs_path))
        for dep in deps
        if not hasattr(dep, "read_params")
    }
    text = json.dumps([stage, files, *more], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _digest(path: Path) -> str:
    spec = path / "spec.json"
    return code_changes.digest_of(code_changes.read(spec if spec.is_file() else path))
