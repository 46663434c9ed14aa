"""Which workers train together, and waiting until all of them are there.

    TF_CONFIG                            as TensorFlow defines it
    Slurm                                a step of several tasks (`srun`)
    Kubernetes, or anything else         ENGRAM_WORKERS, how many there are,
                                         ENGRAM_ADDRESS, such as train-{index}.train:2222,
                                         JOB_COMPLETION_INDEX, which one this is

Environment variables say so, looked at in this order. ENGRAM_PATIENCE is how many seconds
the others may take to appear, and ENGRAM_PORT the first port on a Slurm node.
"""

import dataclasses
import json
import os
import socket
import threading
import time

HELLO = 0.2  # seconds between two attempts to reach another worker


@dataclasses.dataclass(frozen=True)
class Workers:
    """All workers' addresses, `host:port`, and which of them this process is."""

    addresses: list[str]
    index: int

    @property
    def chief(self) -> bool:
        """Whether this is the one that writes files and talks to MLflow."""
        return self.index == 0

    def as_tf_config(self) -> str:
        """Returns the value of `TF_CONFIG` that says the same."""
        task = {"type": "worker", "index": self.index}
        return json.dumps({"cluster": {"worker": self.addresses}, "task": task})


def workers() -> Workers | None:
    """Returns the workers that the environment tells of; None where there are no others.

    Raises:
        ValueError: if a variable does not say what it should.
    """
    if text := os.environ.get("TF_CONFIG"):
        found = _of_tf_config(text)
    elif int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) > 1:
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
            return Workers([str(one) for one in addresses], int(task["index"]))
    except (ValueError, KeyError, TypeError):
        pass
    raise ValueError(
        '`TF_CONFIG` must be like {"cluster": {"worker": ["host:port", ...]}, "task":'
        f' {{"type": "worker", "index": 0}}}}, with workers alone. Received: {text}'
    )


def _of_slurm() -> Workers:
    import tensorflow as tf

    port = int(os.environ.get("ENGRAM_PORT", "8888"))
    resolver = tf.distribute.cluster_resolver.SlurmClusterResolver(port_base=port)
    addresses = resolver.cluster_spec().as_dict()["worker"]
    return Workers(addresses, resolver.get_task_info()[1])


def _of_variables(count: str) -> Workers:
    pattern = os.environ.get("ENGRAM_ADDRESS", "")
    index = os.environ.get("JOB_COMPLETION_INDEX", "")
    if not (count.isdecimal() and index.isdecimal() and "{index}" in pattern):
        raise ValueError(
            "`ENGRAM_WORKERS` and `JOB_COMPLETION_INDEX` must be whole numbers,"
            " `ENGRAM_ADDRESS` like train-{index}.train:2222, with {index} in it."
            f" Received: {count!r}, {index!r} and {pattern!r}"
        )
    addresses = [pattern.replace("{index}", str(n)) for n in range(int(count))]
    return Workers(addresses, int(index))


def meet(found: Workers, seconds: float | None = None) -> None:
    """Returns when every worker has reached every other one.

    TensorFlow waits for an hour, and says nothing, if one of them never appears.

    Args:
        found: the workers.
        seconds: how long the others may take; `ENGRAM_PATIENCE`, else five minutes.

    Raises:
        TimeoutError: with the addresses of those that did not appear.
    """
    seconds = seconds or float(os.environ.get("ENGRAM_PATIENCE", "300"))
    end = time.monotonic() + seconds
    others = {n for n in range(len(found.addresses)) if n != found.index}
    heard: set[int] = set()
    _, port = _split(found.addresses[found.index])
    with socket.create_server(("", port)) as door:
        door.settimeout(HELLO)
        listener = threading.Thread(target=_listen, args=(door, others, heard, end))
        listener.start()
        reached: set[int] = set()
        while reached != others and time.monotonic() < end:
            for n in others - reached:
                if _greet(found, n):
                    reached.add(n)
            time.sleep(0 if reached == others else HELLO)
        listener.join()
    if absent := others - (reached & heard):
        named = ", ".join(f"{n} at {found.addresses[n]}" for n in sorted(absent))
        raise TimeoutError(
            f"worker {found.index} at {found.addresses[found.index]} waited {seconds:g} s"
            f" in vain for worker {named}"
        )


def _listen(door: socket.socket, others: set[int], heard: set[int], end: float) -> None:
    """Notes who calls, until all others have, and answers."""
    while heard != others and time.monotonic() < end:
        try:
            caller, _ = door.accept()
        except TimeoutError:
            continue
        with caller:
            caller.settimeout(1)
            try:
                said = caller.recv(32).decode(errors="replace").split()
                if said[:1] == ["engram"] and said[1:] and said[1].isdecimal():
                    caller.sendall(b"engram")
                    heard.add(int(said[1]))
            except OSError:  # it went away; it will call again
                continue


def _greet(found: Workers, other: int) -> bool:
    """Returns whether another worker answers."""
    try:
        with socket.create_connection(_split(found.addresses[other]), timeout=1) as line:
            line.sendall(f"engram {found.index}".encode())
            return line.recv(16) == b"engram"
    except OSError:
        return False


def _split(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise ValueError(f"a worker's address must be host:port. Received: {address!r}")
    return host, int(port)
