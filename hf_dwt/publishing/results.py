"""Which evaluations in the log of a run are of the weights that are described."""

from collections.abc import Mapping, Sequence

LogHistory = Sequence[Mapping[str, float]]

_TIMED = ("runtime", "per_second", "preparation_time")


def held_out_sets(figures: Mapping[str, float]) -> list[str]:
    """Prefixes of the held-out sets that figures are of: "eval", or "eval_<name>" where `eval_dataset` names several.

    What has a loss alone, as `eval_soft_loss` or one of a user's `compute_metrics`, is none: a set has a perplexity.
    """
    named = [name.removesuffix("_loss") for name in figures if name.startswith("eval_") and name.endswith("_loss")]
    return [prefix for prefix in named if prefix == "eval" or f"{prefix}_perplexity" in figures]


def is_over(log_history: LogHistory) -> bool:
    """Tell whether the run has ended, as planned or before."""
    return _end(log_history) > 0


def results_of(log_history: LogHistory, step: int) -> dict[str, float] | None:
    """Evaluation of the weights of a step, without its timings; None if there was none.

    Args:
        log_history: Of the trainer. What was evaluated after the end of the run are the weights of the step, although
            the log has another one where they are the best model's.
        step: Whose weights the student has.
    """
    end = _end(log_history)
    found = _figures(log_history[end:]) if end else None
    return found or _figures([each for each in log_history if each.get("step") == step])


def other_results_of(log_history: LogHistory) -> dict[str, float] | None:
    """The last evaluation and its `step`, for weights that were not evaluated; None if none was."""
    steps = [each["step"] for each in log_history if held_out_sets(each)]
    return {"step": steps[-1], **(results_of(log_history, int(steps[-1])) or {})} if steps else None


def _end(log_history: LogHistory) -> int:
    """How many entries there were when the run ended, 0 while it goes on: `Trainer` logs the time that it took."""
    return max((place for place, each in enumerate(log_history, 1) if "train_runtime" in each), default=0)


def _figures(entries: LogHistory) -> dict[str, float] | None:
    # Of several sets each has an entry; a set that was evaluated again has its last one.
    last = {tuple(held_out_sets(each)): each for each in entries if held_out_sets(each)}
    named = [(name, value) for each in last.values() for name, value in each.items() if name.startswith("eval_")]
    return {name: value for name, value in named if not name.endswith(_TIMED)} or None
