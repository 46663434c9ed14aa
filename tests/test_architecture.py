"""The package is layered, and what is dangerous or slow stays where it belongs."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src/engram"
MODULES = sorted(PACKAGE.rglob("*.py"))
SCRIPTS = sorted((ROOT / "pipeline").glob("*.py"))
FORBIDDEN_NAMES = {
    "utils",
    "util",
    "helpers",
    "common",
    "misc",
    "base",
    "manager",
    "core",
}
# What may import which part of engram, besides parts of the same name.
ARROWS = {
    "layers": set(),
    "pretraining": {"layers"},
    "models": {"layers"},
    "gradient_flow": {"layers", "schedules"},
    "datasets": {"repository"},
    "tasks": set(),
    "distribution": {"cluster", "keras_repairs", "stops"},
    "cluster": set(),
    "keras_repairs": set(),
    "schedules": set(),
    "callbacks": {"stops"},
    "checkpoints": {"stops"},
    "stops": set(),
    "memory": set(),
    "resuming": {"checkpoints", "memory"},
    "workers": {"cluster", "params", "repository"},
    "training": {
        "callbacks",
        "checkpoints",
        "distribution",
        "memory",
        "resuming",
        "schedules",
        "stops",
    },
    "depth_cliff": {
        "callbacks",
        "gradient_flow",
        "layers",
        "models",
        "tasks",
        "training",
    },
    "trainability_map": {"gradient_flow", "tasks"},
    "unfinished": set(),
    "tracking": {"delivery", "open_runs", "repository", "store", "transcript"},
    "delivery": {"open_runs", "outbox", "store", "transcript"},
    "open_runs": {"store", "transcript"},
    "outbox": {"store"},
    "transcript": set(),
    "store": {"repository"},
    "repository": set(),
    "param_forms": set(),
    "params": {"param_forms"},
    "bootstrap": set(),
    "fits": set(),
    "tables": set(),
    "axes": set(),
    "charts": {"axes", "tables"},
    "comparison": {"bootstrap", "tables"},
    "report": {"charts", "tables"},
    "progress": {"repository", "warm"},
    "warm": set(),
    "code_changes": {"repository"},
    "explain": {"code_changes", "locked", "params", "progress", "repository"},
    "locked": {"code_changes"},
    "stage_key": {"code_changes"},
    "restarts": {"checkpoints", "locked", "repository", "stage_key", "stops"},
    "recorded": {"tracking"},
    "stage_links": {"code_changes", "locked", "repository"},
    "run_links": {
        "locked",
        "recorded",
        "repository",
        "stage_links",
        "sync",
        "tracking",
    },
    "lineage": {"locked", "recorded", "repository", "run_links", "stage_links"},
    "sync": {
        "code_changes",
        "delivery",
        "locked",
        "open_runs",
        "outbox",
        "recorded",
        "repository",
        "restarts",
        "store",
        "tracking",
    },
    "diff": {"recorded"},
    "params_edit": set(),
    "search_space": {"params", "params_edit"},
    "sweep": {
        "locked",
        "params",
        "params_edit",
        "search_space",
        "stage_key",
        "store",
        "tracking",
    },
    "trials": {
        "distribution",
        "models",
        "params",
        "params_edit",
        "store",
        "sweep",
        "tasks",
        "tracking",
        "training",
    },
    "export": {"models", "params", "promote", "serving", "tasks"},
    "__main__": {
        "delivery",
        "diff",
        "explain",
        "export",
        "lineage",
        "promote",
        "store",
        "sweep",
        "sync",
    },
    "readme": {"comparison", "tables"},
    "translate": {"models", "params", "tasks"},
    "serving": {"layers", "models", "tasks", "translate"},
    "served_model": {"serving"},
    "registry": {"serving"},
    "model_card": {"serving", "tables"},
    "promote": {
        "lineage",
        "model_card",
        "params",
        "recorded",
        "registry",
        "serving",
        "tracking",
    },
    "anatomy": {"models", "translate"},
    "__init__": set(),
}


def _tree(path):
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def _name(path):
    return str(path.relative_to(ROOT))


def _part(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def _imports(nodes):
    """Yields the dotted name of every import; `from a import b` gives `a.b`."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _all_imports(path):
    return set(_imports(ast.walk(_tree(path))))


def _loaded_at_import(tree):
    """Yields the nodes that run when the module is imported."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        yield node
        yield from _loaded_at_import(node)


def _docstrings(tree):
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    bodies = [node.body for node in ast.walk(tree) if isinstance(node, kinds)]
    return {id(body[0].value) for body in bodies if isinstance(body[0], ast.Expr)}


def _dotted(node):
    parts = []
    while isinstance(node, ast.Attribute):
        parts, node = [node.attr, *parts], node.value
    return ".".join([node.id, *parts]) if isinstance(node, ast.Name) else ""


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_imports_within_engram_follow_the_arrows(path):
    part = _part(path)
    ours = {name for name in _all_imports(path) if name.split(".")[0] == "engram"}
    used = {name.split(".")[1] for name in ours}
    assert used - {part} <= ARROWS.get(part, set())


def test_the_arrows_name_every_part_and_make_no_circle():
    assert set(ARROWS) == {_part(path) for path in MODULES}
    left = dict(ARROWS)
    while left:
        free = {part for part, targets in left.items() if not targets & set(left)}
        assert free, f"a circle among {sorted(left)}"
        left = {part: targets for part, targets in left.items() if part not in free}


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_the_package_never_imports_the_pipeline(path):
    roots = {name.split(".")[0] for name in _all_imports(path)}
    assert not roots & {"pipeline", *(script.stem for script in SCRIPTS)}


LAYERS = sorted((PACKAGE / "layers").rglob("*.py"))
LOOPS = ("scan", "contrastive_divergence", "updates", "draws", "annealing", "monitor")
# What measures gradients does so with TensorFlow's tapes.
PROBES = ("activations", "callback", "chain_rule", "clipping", "graph", "measures")
PROBES += ("over_time", "report", "spectrum")
# Loaded when a call takes that path, or when a machine is trained.
OF_ONE_BACKEND = {f"{name}.py": "tensorflow" for name in LOOPS}


@pytest.mark.parametrize("path", LAYERS, ids=_name)
def test_layers_import_keras_and_nothing_else(path):
    at_import = set(_imports(_loaded_at_import(_tree(path))))
    roots = {name.split(".")[0] for name in at_import} - set(sys.stdlib_module_names)
    assert roots <= {"keras", "numpy", "engram", OF_ONE_BACKEND.get(path.name)}
    ours = {name for name in _all_imports(path) if name.split(".")[0] == "engram"}
    assert all(name.startswith("engram.layers.") for name in ours)


@pytest.mark.parametrize("path", [*MODULES, *SCRIPTS], ids=_name)
def test_only_tracking_and_what_mlflow_runs_import_mlflow(path):
    users = {name.split(".")[0] for name in _all_imports(path)}
    names = ("tracking", "delivery", "recorded", "registry", "served_model", "warm")
    allowed = [PACKAGE / f"{name}.py" for name in names]
    assert ("mlflow" in users) == (path in allowed)
    assert "engram.served_model" not in _all_imports(path)  # it sets MLflow's model


@pytest.mark.parametrize("path", [*MODULES, *SCRIPTS], ids=_name)
def test_only_distribution_uses_tf_distribute(path):
    tree = _tree(path)
    places = {_dotted(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    places |= set(_imports(ast.walk(tree)))
    found = [
        p
        for p in places
        if f"{p}.".startswith(
            ("tf.distribute.", "tensorflow.distribute.", "tensorflow.python.distribute.")
        )
    ]
    ours = ("distribution.py", "cluster.py", "keras_repairs.py")
    assert bool(found) == (path in {PACKAGE / name for name in ours})


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_only_params_reads_params(path):
    # progress counts the names of the stages, as DVC does, also of a file with faults;
    # translate, sweep with its trials and explain are commands as the stages are; locked
    # and stage_links read dvc.lock and compare the params in it with those of the file
    others = ("progress", "translate", "sweep", "trials", "promote", "export", "explain")
    others += ("locked", "stage_links", "search_space", "workers")
    if path in {PACKAGE / f"{name}.py" for name in ("params", "params_edit", *others)}:
        return
    tree = _tree(path)
    told = _docstrings(tree)
    texts = [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        if id(node) not in told
    ]
    assert not [text for text in texts if text.endswith("params.yaml")]
    assert "yaml" not in {name.split(".")[0] for name in _all_imports(path)}
    assert not [name for name in _all_imports(path) if name.startswith("engram.params")]


@pytest.mark.parametrize("path", [*MODULES, *SCRIPTS], ids=_name)
def test_tensorflow_is_imported_only_where_it_is_used(path):
    allowed = {"training.py", "distribution.py", "keras_repairs.py", *OF_ONE_BACKEND}
    roots = {n.split(".")[0] for n in _imports(_loaded_at_import(_tree(path)))}
    probes = path.parent == PACKAGE / "gradient_flow" and path.stem in PROBES
    game = path == PACKAGE / "models/generation.py"  # its step has tapes of its own
    assert "tensorflow" not in roots or path.name in allowed or probes or game


@pytest.mark.parametrize("path", SCRIPTS, ids=_name)
def test_a_stage_script_checks_params_before_it_loads_keras(path):
    roots = {n for n in _imports(_loaded_at_import(_tree(path)))}
    heavy = {"engram.training", "engram.tracking", "engram.distribution", "engram.models"}
    assert "engram.params" in roots
    assert not roots & heavy
    assert not {"keras", "tensorflow", "mlflow"} & {name.split(".")[0] for name in roots}


@pytest.mark.parametrize("path", [*MODULES, *SCRIPTS], ids=_name)
def test_no_module_has_a_name_that_says_nothing(path):
    words = {
        word
        for part in path.relative_to(ROOT).parts[1:]
        for word in part.removesuffix(".py").split("_")
    }
    assert not words & FORBIDDEN_NAMES


@pytest.mark.parametrize("path", [*MODULES, *SCRIPTS], ids=_name)
def test_nothing_runs_code_that_comes_from_a_file_or_a_string(path):
    tree = _tree(path)
    roots = {name.split(".")[0] for name in _all_imports(path)}
    assert not roots & {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
    # warm runs the scripts of dvc.yaml, as python would
    assert not roots & {"runpy", "imp"} or path == PACKAGE / "warm.py"
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    called = {_dotted(call.func) for call in calls}
    assert not called & {
        "eval",
        "exec",
        "compile",
        "__import__",
        "import_module",
        "importlib.import_module",
        "os.system",
        "yaml.unsafe_load",
    }
    given = {(k.arg, ast.unparse(k.value)) for call in calls for k in call.keywords}
    wanted = {"allow_pickle": "False", "shell": "False", "safe_mode": "True"}
    assert {(a, v) for a, v in given if a in wanted} <= set(wanted.items())
    assert not [
        c
        for c in calls
        if _dotted(c.func) == "getattr"
        and len(c.args) > 1
        and not isinstance(c.args[1], ast.Constant)
        and path in SCRIPTS
    ]


@pytest.mark.parametrize("path", SCRIPTS, ids=_name)
def test_a_stage_script_is_at_most_sixty_lines(path):
    assert len(path.read_text().splitlines()) <= 60


@pytest.mark.parametrize("path", SCRIPTS, ids=_name)
def test_a_stage_script_does_nothing_when_it_is_imported(path):
    allowed = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.Expr, ast.If)
    body = _tree(path).body
    assert all(isinstance(node, allowed) for node in body)
    assert ast.unparse(body[-1].test) == "__name__ == '__main__'"


@pytest.mark.parametrize(
    "module",
    [
        "engram",
        "engram.layers",
        "engram.models",
        "engram.gradient_flow.theory",
        "engram.gradient_flow.heat_map",
        "engram.tasks",
        "engram.params",
        "engram.repository",
        "engram.comparison",
        "engram.report",
        "engram.tasks.forecasting",
        "engram.tasks.video",
        "engram.tasks.classification",
        "engram.tasks.reconstruction",
        "engram.tasks.translation",
        "engram.datasets.parallel_text",
        "engram.datasets.tiny_french",
        "engram.translate",
        "engram.serving",
        "engram.promote",
        "engram.anatomy",
        "engram.datasets.readings",
        "engram.datasets.moving_digits",
        "engram.datasets.digits",
    ],
)
def test_a_cheap_module_loads_neither_keras_nor_tensorflow(module):
    code = (
        f"import sys, {module}\n"
        "loaded = {name.split('.')[0] for name in sys.modules}\n"
        "print(loaded & {'keras', 'tensorflow', 'mlflow'})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "set()\n", done.stdout + done.stderr


def test_engram_itself_loads_nothing_but_the_standard_library():
    code = (
        "import sys; old = set(sys.modules); import engram; print(set(sys.modules) - old)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "{'engram'}\n", done.stdout + done.stderr
