"""metrics/ + figures/ -> results/: the tables, the summary and the report."""

import json
from pathlib import Path

from engram import comparison, params, report


def main() -> None:
    """Compares the experiments that `params.yaml` names, and no others."""
    values = params.load_or_exit()
    rows, details = comparison.read(list(values["experiments"]), Path("metrics"))
    compared = comparison.compare(rows, details, **values["compare"])
    figures = {
        name: sorted(Path("figures", name).glob("*.png"))
        for name in values["experiments"]
    }
    results = Path("results")
    results.mkdir(exist_ok=True)
    texts = {
        "comparison.json": comparison.as_json(compared),
        "summary.json": json.dumps(comparison.summary(compared), indent=2) + "\n",
        "comparison.md": comparison.markdown(compared),
        "report.html": report.html_report(compared, details, figures),
    }
    for name, text in texts.items():
        (results / name).write_text(text, encoding="utf-8")
    print(f"results: {results.resolve()}/report.html and comparison.md")


if __name__ == "__main__":
    main()
