"""Runs a script as `python` does, and writes down which modules it loaded.

    warm_python.py once SCRIPT ARGS      in this process
    warm_python.py serve SOCKET          waits, as engram.warm does
    warm_python.py ask SOCKET SCRIPT ARGS

`$RECORD_MODULES` names the file that gets `{module: file}`. engram.warm is loaded by its
file: nothing else of engram may be there before a stage begins.
"""

import importlib.util
import json
import os
import sys
from pathlib import Path

FILE = Path(__file__).parents[1] / "src/engram/warm.py"
spec = importlib.util.spec_from_file_location("warm", FILE)
warm = importlib.util.module_from_spec(spec)
spec.loader.exec_module(warm)


sys.path.pop(0)  # of this file: no stage has it


def recorded(order):
    try:
        warm.run(order)
    finally:
        if "RECORD_MODULES" in os.environ:
            found = {
                name: getattr(module, "__file__", None)
                for name, module in list(sys.modules.items())
            }
            with open(os.environ["RECORD_MODULES"], "w") as record:
                json.dump(found, record)


def once(*command):
    here = {"folder": os.getcwd(), "environment": dict(os.environ)}
    recorded({**here, "command": command})


def serve(address):
    import matplotlib.pyplot  # noqa: F401, what evaluating needs, too
    import sklearn.linear_model  # noqa: F401
    import tensorflow_datasets  # noqa: F401

    warm.serve(address, recorded)


if __name__ == "__main__":
    {"once": once, "serve": serve, "ask": warm.ask}[sys.argv[1]](*sys.argv[2:])
