"""The command `engram`: what can be asked of a repository of experiments."""

import os
import sys

USAGE = """usage: engram <command> [...]

  explain    why each stage would run, before `dvc repro`
  lineage    where a file, run or model comes from, each link verified
  diff       what differs between two runs
  sweep      look for better params of an experiment, judged on validation
  promote    register a trained model under an alias, ready to be served
  export     write a trained network as a SavedModel or as ONNX
  sync       tie runs to dvc.lock, record results that DVC brought back

`engram <command> --help` tells more.
"""


def main(argv: list[str] | None = None) -> None:
    """Runs the command that the first word names."""
    word, *rest = (sys.argv[1:] if argv is None else argv) or ["--help"]
    try:
        try:
            _run(word, rest)
        finally:
            sys.stdout.flush()
    except ModuleNotFoundError as error:
        if str(error.name).startswith("engram"):
            raise
        sys.exit(f"engram {word} needs {error.name}: pip install 'engram[pipeline]'")
    except BrokenPipeError:  # who reads has read enough, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        from engram import store

        if not store.ELSEWHERE:
            raise
        from engram import delivery

        if not delivery.down(error):
            raise
        said = str(error).strip().splitlines() or [type(error).__name__]
        sys.exit(f"engram {word}: the store of runs does not answer: {said[0]}")


def _run(word: str, rest: list[str]) -> None:
    if word in ("-h", "--help"):
        print(USAGE, end="")
    elif word == "explain":
        from engram import explain

        explain.main(rest)
    elif word == "lineage":
        from engram import lineage

        lineage.main(rest)
    elif word == "diff":
        from engram import diff

        diff.main(rest)
    elif word == "sweep":
        from engram import sweep

        sweep.main(rest)
    elif word == "promote":
        from engram import promote

        promote.main(rest)
    elif word == "export":
        from engram import export

        export.main(rest)
    elif word == "sync":
        from engram import sync

        sync.main(rest)
    else:
        sys.exit(f"engram: no command {word!r}\n\n{USAGE}")


if __name__ == "__main__":
    main()
