"""metrics/ + figures/ -> results/: the tables, the summary and the report.

Beside them the report lists the runs that failed, and becomes an artifact in MLflow.
"""

from pathlib import Path

from engram import comparison, params, report


def main() -> None:
    """Compares the experiments that `params.yaml` names and that were evaluated."""
    values = params.load_or_exit()
    folder, experiments = Path("metrics"), list(values["experiments"])
    missing = [name for name in experiments if not (folder / f"{name}.json").is_file()]
    if missing:
        print(f"not evaluated yet, so left out: {', '.join(missing)}")
    rows, details = comparison.read(
        [name for name in experiments if name not in missing], folder
    )
    beside = [
        one for one in values["compare"]["published"] if one["experiment"] not in missing
    ]
    from engram import recorded, repository, tracking  # after the check: MLflow

    compared = comparison.compare(rows, details, values["compare"]["reference"], beside)
    figures = {name: sorted(Path("figures", name).glob("*.png")) for name in experiments}
    suite = repository.suite(Path.cwd())
    failures = recorded.failures(suite)
    results = Path("results")
    results.mkdir(exist_ok=True)
    texts = {
        "comparison.json": comparison.as_json(compared),
        "summary.json": comparison.as_json(comparison.summary(compared, missing)),
        "metrics.json": comparison.as_json(comparison.scores(compared)),
        "curves.csv": comparison.points(compared, details),
        "comparison.md": comparison.markdown(compared),
        "report.html": report.html_report(compared, details, figures, failures, missing),
    }
    for name, text in texts.items():
        (results / name).write_text(text, encoding="utf-8")
    if failures is not None:  # the store answers
        with tracking.summing_up(f"comparison of {suite}", "comparison"):
            tracking.log_files([results / name for name in texts], "")
    print(f"results: {results.resolve()}/report.html and comparison.md")


if __name__ == "__main__":
    main()
