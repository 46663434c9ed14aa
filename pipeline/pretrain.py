"""data/prepared/<dataset> -> runs/<stack>/{pretrained, pretraining}: a stack of RBMs."""

import json
import sys
import time
from pathlib import Path

from engram import params


def main(name: str) -> None:
    """Pretrains the stack `name` of `params.yaml`, one per seed."""
    block = params.load_or_exit()["pretraining"][name]
    from engram import tasks, tracking  # after the check: TensorFlow
    from engram.pretraining import greedy

    prepared, out = Path("data/prepared", block["dataset"]), Path("runs", name)
    spec = json.loads((prepared / "spec.json").read_text())
    task = tasks.task(block["task"])
    rows, held = (task.rows(prepared, part) for part in ("train", "validation"))
    (out / "pretrained").mkdir(parents=True, exist_ok=True)
    histories = {}
    for seed in block["train"]["seeds"]:
        with tracking.run(
            name=f"{name} seed {seed}",
            group=block["dataset"],
            params={**block, "seed": seed},
            tags={"pretraining": name},
            spec=spec,
        ) as (_, record):
            how = {key: v for key, v in block["train"].items() if key != "seeds"}
            began = time.perf_counter()
            stack, histories[seed] = greedy.train_stack(
                rows, held, seed=seed, record=record, **block["stack"], **how
            )
            seconds = time.perf_counter() - began
            size = {"parameters": stack.count_params(), "seconds": seconds}
            record(size, block["train"]["epochs"])
        stack.save(out / "pretrained" / f"seed-{seed}.keras")
    (out / "pretraining.json").write_text(json.dumps(histories, indent=2) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
