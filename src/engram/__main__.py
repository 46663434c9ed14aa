"""The command `engram`: what can be asked of a repository of experiments."""

import sys

USAGE = """usage: engram <command> [...]

  explain    why each stage would run, before `dvc repro`

`engram <command> --help` tells more.
"""


def main(argv: list[str] | None = None) -> None:
    """Runs the command that the first word names."""
    word, *rest = (sys.argv[1:] if argv is None else argv) or ["--help"]
    if word in ("-h", "--help"):
        print(USAGE, end="")
    elif word == "explain":
        from engram import explain

        explain.main(rest)
    else:
        sys.exit(f"engram: no command {word!r}\n\n{USAGE}")


if __name__ == "__main__":
    main()
