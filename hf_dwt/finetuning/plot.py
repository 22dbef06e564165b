"""Scores of models on tasks, as points with their spread."""

from pathlib import Path

from hf_dwt.finetuning.report import SuiteReport

_MARKERS = "os^Dvx*P"


def plot_report(report: SuiteReport, path: Path) -> None:
    """Draw the mean score of each model on each task, with the standard deviation over seeds.

    Args:
        report: What to draw; models are told apart by markers, not by colour alone.
        path: Of the PNG file.

    Raises:
        ImportError: If matplotlib is missing; `pip install 'hf_dwt[plots]'` brings it.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2 + 1.2 * len(report.columns), 4), layout="constrained")
    axes = figure.subplots()
    width = 0.6 / len(report.models)
    for index, model in enumerate(report.models):
        summaries = {place: report.summary(model, column) for place, column in enumerate(report.columns)}
        known = {place: summary for place, summary in summaries.items() if summary is not None}
        axes.errorbar(
            [place + width * (index - (len(report.models) - 1) / 2) for place in known],
            [100 * summary.mean for summary in known.values()],
            [100 * (summary.deviation or 0.0) for summary in known.values()],
            linestyle="",
            marker=_MARKERS[index % len(_MARKERS)],
            capsize=3,
            label=model,
        )
    axes.set_xticks(range(len(report.columns)), report.columns)
    axes.set_ylabel("score times 100")
    axes.grid(axis="y", alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120)
