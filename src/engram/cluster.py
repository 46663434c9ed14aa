"""Which workers train together, and waiting until all of them are there.

    TF_CONFIG                            as TensorFlow defines it
    Slurm                                a step of several tasks (`srun`)
    Kubernetes, or anything else         ENGRAM_WORKERS, how many there are,
                                         ENGRAM_ADDRESS, such as train-{index}.train:2222,
                                         JOB_COMPLETION_INDEX, which one this is

Environment variables say so, looked at in this order. ENGRAM_PATIENCE is how many seconds
the others may take to appear, and ENGRAM_PORT the first port on a Slurm node.
"""

import contextlib
import dataclasses
import json
import os
import socket
import time

STRATEGIES = ("auto", "multi_worker")  # that look for other workers
MANY = 1000  # tasks on a node
ANSWER, AGAIN = 5.0, 0.2  # seconds for an answer, and between two attempts to call


@dataclasses.dataclass(frozen=True)
class Workers:
    """All workers' addresses, `host:port`, and which of them this process is."""

    addresses: tuple[str, ...]
    index: int

    @property
    def chief(self) -> bool:
        """Whether this is the one that writes files and talks to MLflow."""
        return self.index == 0

    def as_tf_config(self) -> str:
        """Returns the value of `TF_CONFIG` that says the same."""
        task = {"type": "worker", "index": self.index}
        return json.dumps({"cluster": {"worker": [*self.addresses]}, "task": task})


def workers() -> Workers | None:
    """Returns the workers that the environment tells of; None where there are no others.

    Raises:
        ValueError: if a variable does not say what it should.
    """
    if text := os.environ.get("TF_CONFIG"):
        found = _of_tf_config(text)
    elif _number("SLURM_STEP_NUM_TASKS", 1) > 1:
        found = _of_slurm()
    elif text := os.environ.get("ENGRAM_WORKERS"):
        found = _of_variables(text)
    else:
        return None
    if not 0 <= found.index < len(found.addresses):
        raise ValueError(
            f"this worker's index must be from 0 to {len(found.addresses) - 1}."
            f" Received: {found.index}, of the workers {found.addresses}"
        )
    return found if len(found.addresses) > 1 else None


def _of_tf_config(text: str) -> Workers:
    try:
        config = json.loads(text)
        addresses, task = config["cluster"]["worker"], config["task"]
        if set(config["cluster"]) == {"worker"} and task["type"] == "worker":
            return Workers(tuple(map(str, addresses)), int(task["index"]))
    except (ValueError, KeyError, TypeError):
        pass
    raise ValueError(
        '`TF_CONFIG` must be like {"cluster": {"worker": ["host:port", ...]}, "task":'
        f' {{"type": "worker", "index": 0}}}}, with workers alone. Received: {text}'
    )


def _of_slurm() -> Workers:
    import tensorflow as tf

    # Which GPUs a task has is left to Slurm: the resolver would ask nvidia-smi.
    resolver = tf.distribute.cluster_resolver.SlurmClusterResolver(
        port_base=_number("ENGRAM_PORT", 8888),
        gpus_per_node=MANY,
        gpus_per_task=1,
        auto_set_gpu=False,
    )
    addresses = resolver.cluster_spec().as_dict()["worker"]
    return Workers(tuple(addresses), resolver.get_task_info()[1])


def _of_variables(count: str) -> Workers:
    pattern = os.environ.get("ENGRAM_ADDRESS", "")
    index = os.environ.get("JOB_COMPLETION_INDEX", "")
    if not (count.isdecimal() and index.isdecimal() and "{index}" in pattern):
        raise ValueError(
            "`ENGRAM_WORKERS` and `JOB_COMPLETION_INDEX` must be whole numbers,"
            " `ENGRAM_ADDRESS` like train-{index}.train:2222, with {index} in it."
            f" Received: {count!r}, {index!r} and {pattern!r}"
        )
    addresses = (pattern.replace("{index}", str(n)) for n in range(int(count)))
    return Workers(tuple(addresses), int(index))


def meet(found: Workers, seconds: float | None = None) -> None:
    """Returns when all workers are there: each has called the chief, which tells all.

    TensorFlow waits for an hour, and says nothing, if one of them never appears.

    Args:
        found: the workers.
        seconds: how long the others may take; `ENGRAM_PATIENCE`, else five minutes.

    Raises:
        TimeoutError: with the addresses of those that did not appear.
    """
    seconds = seconds or _number("ENGRAM_PATIENCE", 300)
    for address in found.addresses:
        _split(address)
    end = time.monotonic() + seconds
    absent = _gather(found, end) if found.chief else _call(found, end)
    if absent:
        named = ", ".join(f"{n} at {found.addresses[n]}" for n in absent)
        raise TimeoutError(
            f"worker {found.index} at {found.addresses[found.index]} waited {seconds:g} s"
            f" in vain for worker {named}"
        )


def _gather(found: Workers, end: float) -> list[int]:
    """Lets all others call, and tells them who is absent; returns those."""
    others = set(range(1, len(found.addresses)))
    lines: dict[int, socket.socket] = {}
    with contextlib.ExitStack() as stack:
        door = stack.enter_context(_door(found.addresses[0]))
        while lines.keys() != others and (left := end - time.monotonic()) > 0:
            door.settimeout(left)
            with contextlib.suppress(OSError):  # time is up, or the caller went away
                line = stack.enter_context(door.accept()[0])
                line.settimeout(ANSWER)
                said = line.recv(32).decode(errors="replace").split()
                if len(said) == 2 and said[0] == "engram" and said[1].isdecimal():
                    lines |= {int(said[1]): line} if int(said[1]) in others else {}
        absent = sorted(others - lines.keys())
        for line in lines.values():
            with contextlib.suppress(OSError):
                line.sendall(f"absent {' '.join(map(str, absent))}\n".encode())
    return absent


def _door(address: str) -> socket.socket:
    _, port = _split(address)
    both = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both else socket.AF_INET
    try:
        return socket.create_server(("", port), family=family, dualstack_ipv6=both)
    except OSError as error:
        raise OSError(f"worker 0 cannot listen at {address}: {error}") from error


def _call(found: Workers, end: float) -> list[int]:
    """Calls the chief until it answers; returns who is absent, maybe the chief."""
    while (left := end - time.monotonic()) > 0:
        with contextlib.suppress(OSError):  # it is not there yet, or went away
            where = _split(found.addresses[0])
            with socket.create_connection(where, timeout=ANSWER) as line:
                line.sendall(f"engram {found.index}".encode())
                line.settimeout(left + ANSWER)  # it may have come a little later
                said = line.makefile().readline().split()
                if said[:1] == ["absent"]:
                    return [int(n) for n in said[1:]]
        time.sleep(AGAIN)
    return [0]


def _split(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise ValueError(f"a worker's address must be host:port. Received: {address!r}")
    return host.strip("[]"), int(port)


def _number(name: str, default: int) -> int:
    text = os.environ.get(name, str(default))
    if not text.isdecimal():
        raise ValueError(f"`{name}` must be a whole number. Received: {text!r}")
    return int(text)
