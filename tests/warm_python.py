"""Runs a script as `python` does, and writes down which modules it loaded.

    warm_python.py once SCRIPT ARGS          in this process
    warm_python.py serve SOCKET              waits, with TensorFlow and MLflow imported
    warm_python.py ask SOCKET SCRIPT ARGS    lets the waiting process fork and run it

A stage spends most of its time importing TensorFlow. A fork of a process that has done
so, and has loaded nothing of engram, saves that time. `$RECORD_MODULES` names the file
that gets `{module: file}`.
"""

import array
import gc
import json
import os
import runpy
import socket
import sys


def once(script, *arguments):
    sys.argv = [script, *arguments]
    extra = [path for path in os.environ.get("PYTHONPATH", "").split(":") if path]
    sys.path[:] = [os.path.dirname(os.path.abspath(script)), *extra, *sys.path[1:]]
    try:
        runpy.run_path(script, run_name="__main__")
    finally:
        if "RECORD_MODULES" in os.environ:
            found = {
                name: getattr(module, "__file__", None)
                for name, module in list(sys.modules.items())
            }
            with open(os.environ["RECORD_MODULES"], "w") as record:
                json.dump(found, record)


def serve(address):
    import keras  # noqa: F401
    import matplotlib.pyplot  # noqa: F401
    import mlflow  # noqa: F401
    import sklearn.linear_model  # noqa: F401
    import tensorflow  # noqa: F401
    import tensorflow_datasets  # noqa: F401

    ours = [name for name in sys.modules if name.split(".")[0] == "engram"]
    assert not ours, ours
    gc.freeze()
    waiting = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    waiting.bind(address)
    waiting.listen()
    while True:
        asked, _ = waiting.accept()
        files, size = array.array("i"), array.array("i", [0, 0]).itemsize
        message, ancillary, _, _ = asked.recvmsg(1 << 20, socket.CMSG_LEN(2 * size))
        files.frombytes(ancillary[0][2])
        child = os.fork()
        if child == 0:
            order = json.loads(message)
            for number, file in enumerate(files, 1):
                os.dup2(file, number)
            os.chdir(order["folder"])
            os.environ.clear()
            os.environ.update(order["environment"])
            once(*order["command"])
            return
        for file in files:
            os.close(file)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        asked.sendall(str(status).encode())
        asked.close()


def ask(address, *command):
    order = {"folder": os.getcwd(), "environment": dict(os.environ), "command": command}
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asked:
        asked.connect(address)
        socket.send_fds(asked, [json.dumps(order).encode()], [1, 2])
        sys.exit(int(asked.recv(16) or 70))


if __name__ == "__main__":
    {"once": once, "serve": serve, "ask": ask}[sys.argv[1]](*sys.argv[2:])
