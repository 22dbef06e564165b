"""The model card: what a stranger has to know before using a student, from its record alone."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData, constants

from hf_dwt.model_files import looks_local
from hf_dwt.publishing.results import held_out_sets
from hf_dwt.teacher import Origin

CARD_FILE, CURVES_FILE = "README.md", "training_curves.png"

_TASKS = {"masked": "fill-mask", "causal": "text-generation"}
_SIZES = (
    *("num_hidden_layers", "hidden_size", "num_attention_heads", "intermediate_size", "vocab_size"),
    *("n_layer", "n_embd", "n_head", "n_positions", "max_position_embeddings"),
)
_HELD_OUT = "held-out data"


def card_of(
    record: Mapping[str, Any],
    name: str,
    *,
    has_curves: bool,
    tags: Sequence[str] = (),
    datasets: Sequence[str] = (),
    language: str | list[str] | None = None,
    licence: str | None = None,
) -> str:
    """Render the card.

    Args:
        record: As `record.record_of` builds it.
        name: Of the student.
        has_curves: Whether the picture of the curves lies beside it.
        tags: Further tags.
        datasets: Hub ids of data sets.
        language: Of the text, ISO codes.
        licence: Its identifier.
    """
    data = ModelCardData(
        language=language,
        license=licence,
        library_name="peft" if record["student"].get("adapter") else "transformers",
        pipeline_tag=_TASKS[record["kind"]],
        tags=["hf_dwt", *(["distillation"] if record["teacher"] else []), *tags],
        datasets=list(dict.fromkeys([*datasets, *_named(record)])) or None,
        model_name=name if record["results"] else None,
        eval_results=_eval_results(record) or None,
        **_base_model(record),
    )
    sections = [f"# {name}", _introduction(record), *_sections(record, has_curves)]
    return f"---\n{data.to_yaml()}\n---\n\n" + "\n\n".join(sections) + "\n"


def _base_model(record: Mapping[str, Any]) -> dict[str, Any]:
    """The model that it comes from, where that is on the Hub."""
    teacher, student = record["teacher"], record["student"]
    if student.get("adapter"):
        is_public = student["commit"] and student["started_from"]
        return {"base_model": student["started_from"], "base_model_relation": "adapter"} if is_public else {}
    if teacher and teacher["commit"]:
        # The Hub knows four relations; none is distillation, this one is nearest.
        return {"base_model": teacher["name"], "base_model_relation": "finetune"}
    if _started_from_weights(record) and student["commit"]:
        return {"base_model": student["started_from"], "base_model_relation": "finetune"}
    return {}


def _started_from_weights(record: Mapping[str, Any]) -> bool:
    """Only a recipe tells: transformers gives a model that was made from a configuration alone the same name."""
    return bool(record["recipe"]) and "name" in record["recipe"]["student"]


def _eval_results(record: Mapping[str, Any]) -> list[EvalResult]:
    results = record["results"] or {}
    return [
        EvalResult(
            task_type=_TASKS[record["kind"]],
            dataset_type=next(iter(_named(record)), "held-out"),
            dataset_name=" and ".join(_named(record)) or _HELD_OUT,
            dataset_split=_split(prefix) or ("held out" if _named(record) else None),
            metric_type=name,
            metric_value=round(results[f"{prefix}_{name}"], 6),
        )
        for prefix in held_out_sets(results)
        for name in ("loss", "perplexity", "accuracy")
        if f"{prefix}_{name}" in results
    ]


def _split(prefix: str) -> str:
    """Name of a held-out set, empty if there is but one."""
    return prefix.removeprefix("eval").removeprefix("_")


def _named(record: Mapping[str, Any]) -> list[str]:
    return [each["name"] for each in record["data"]["sources"]]


def _introduction(record: Mapping[str, Any]) -> str:
    student, teacher = record["student"], record["teacher"]
    what = (
        f"A {record['kind']} language model, `{student['architecture']}`, of {student['num_parameters']:,} parameters"
    )
    adapter = student.get("adapter")
    if adapter:
        what = (
            f"An adapter ({adapter['type']}, {adapter['num_parameters']:,} parameters) on {what[0].lower()}{what[1:]}"
        )
    needs = "its base is needed, but no teacher" if adapter else "no teacher is needed"
    if teacher is None:
        return f"{what}, trained without a teacher by `hf_dwt`."
    if teacher.get("is_students_base"):
        return (
            f"{what}, trained beside the text on the predictions of its own base, which holds it near by. To use it, "
            "that base is needed."
        )
    share = teacher["num_parameters"] / student["num_parameters"]
    relation = f"{share:.2f} times its size" if share < 1 else f"{share:.2f} times its size: ordinary distillation"
    return (
        f"{what}, trained by distillation from a weak teacher ([Lee et al., 2023](https://arxiv.org/abs/2305.18239)): "
        f"beside the text it has learnt from the predictions of a model {relation}. To use it, {needs}."
    )


def _sections(record: Mapping[str, Any], has_curves: bool) -> Iterator[str]:
    yield _section("Results", _results(record))
    if has_curves:
        yield f"![Losses over optimiser steps]({CURVES_FILE})"
    if record["teacher"]:
        yield _section("Teacher", _teacher(record["teacher"]))
        yield _section("Objective", _objective(record["objective"]))
    yield _section("Student", _student(record))
    yield _section("Training", _training(record))
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    yield _section("To repeat it", [*_repetition(record), f"Versions: {versions}.", _REMARK])


_REMARK = (
    "`dwt_recipe.json` holds everything above and all arguments, for programs; `training_args.json` the arguments."
)


def _repetition(record: Mapping[str, Any]) -> Iterator[str]:
    recipe = record["recipe"]
    if record["command"] is None:
        yield "It was trained in a notebook, which is not part of this repository."
        return
    if recipe is None:
        yield "It was started by this command; a script that it names is not part of this repository."
    elif record["data"]["sources"]:
        yield "With `dwt_recipe.json` of this repository:"
    else:
        yield "With `dwt_recipe.json` of this repository, and the text that it names at hand:"
    yield f"```bash\n{record['command']}\n```"


def _section(title: str, lines: Sequence[str]) -> str:
    return "\n\n".join([f"## {title}", *lines])


def _results(record: Mapping[str, Any]) -> list[str]:
    results, other = record["results"], record.get("other_results")
    if results:
        return [f"On the {_HELD_OUT}:", _figures(results), *_gains(record)]
    if not other:
        return ["It was not evaluated in this run."]
    of_step = record["training"]["weights_of_step"]
    told = f"Its weights, those of step {of_step:,}, were not evaluated in this run. At step {other['step']:,} it had"
    return [f"{told}, on the {_HELD_OUT}:", _figures(other)]


def _figures(results: Mapping[str, float]) -> str:
    names = {
        "loss": "loss, nats per predicted token",
        "perplexity": "perplexity",
        "accuracy": "accuracy",
        "teacher_hard_loss": "the teacher's loss on the same predictions",
        "gap": "gap (its loss minus the teacher's)",
    }
    sets = held_out_sets(results)
    table = [["measure", *(_split(prefix) or "value" for prefix in sets)], ["---"] * (1 + len(sets))]
    for name, text in names.items():
        keys = [f"{prefix}_{name}" for prefix in sets]
        if results.keys() & keys:
            table.append([text, *(f"{results[key]:.4f}" if key in results else "" for key in keys)])
    return "\n".join(f"| {' | '.join(row)} |" for row in table)


def _gains(record: Mapping[str, Any]) -> Iterator[str]:
    loss = record["results"].get("eval_loss")
    for twin in record["baseline"] if loss is not None else ():
        gain = twin["loss"] - loss
        verdict = "lower" if gain > 0 else "higher"
        yield (
            f"The same student {twin['name']} ({twin['steps']:,} steps), has a loss of {twin['loss']:.4f}; with its "
            f"teacher it is {abs(gain):.4f} nats {verdict}."
        )


def _teacher(teacher: Mapping[str, Any]) -> list[str]:
    size = f"`{teacher['architecture']}` of {teacher['num_parameters']:,} parameters"
    if teacher.get("is_students_base"):
        size = f"the adapter's own base with the adapter off, {size}"
    if teacher["commit"]:
        return [f"[{teacher['name']}]({constants.ENDPOINT}/{teacher['name']}), commit `{teacher['commit']}`: {size}."]
    if teacher["name"]:
        return [f"A folder named `{Path(teacher['name']).name}`, which is not public: {size}."]
    return [f"A model that was passed in memory: {size}."]


def _objective(objective: Mapping[str, Any]) -> list[str]:
    soft, hard = objective["soft_loss_weight"], objective["hard_loss_weight"]
    rows = [f"| {at:.0%} | {h:g} | {s:g} |" for (at, h), (_, s) in zip(hard, soft, strict=True)]
    table = "\n".join(["| training done | hard loss | soft loss |", "|---|---|---|", *rows])
    intro = (
        f"Weights by the policy `{objective['weighting']}`, temperature {objective['temperature']:g}. The hard loss is "
        "the cross-entropy with the text, the soft loss the divergence from the teacher's predictions to the student's."
    )
    return [intro, table]


def _student(record: Mapping[str, Any]) -> list[str]:
    student = record["student"]
    config = student["config"]
    sizes = ", ".join(f"`{name}` {config[name]:,}" for name in _SIZES if isinstance(config.get(name), int))
    growth = student["growth"]
    if growth:
        start = (
            f"It was grown from {_grown_from(record)} (width `{growth['width']}`, depth `{growth['depth']}`; "
            "`growth_plan.json` tells how, weight by weight). Before training it was "
            f"{growth['outcome'] or 'not compared with it'}."
        )
    elif student["started_from"] and student.get("adapter"):
        start = f"Its base was loaded from {_place(student)}, and is not part of what was saved."
    elif student.get("adapter"):
        start = "Its base was in memory only, and is not part of what was saved."
    elif student["started_from"]:
        name = Path(student["started_from"]).name if looks_local(student["started_from"]) else student["started_from"]
        start = f"It started from the trained weights of `{name}`."
        if not _started_from_weights(record):
            start = f"It was made from `{name}`: from its trained weights, or from its configuration and at random."
    else:
        start = "It started from random weights."
    return [f"Sizes: {sizes}.", start]


def _grown_from(record: Mapping[str, Any]) -> str:
    """Its teacher, where it is known that the same model has taught it."""
    teacher = record["teacher"]
    named = teacher is not None and teacher["name"] is not None
    if named and str(Origin(teacher["name"], commit=teacher["commit"])) == record["student"]["growth"]["teacher"]:
        return "its teacher"
    return "a smaller model, the teacher of that growth"


def _place(student: Mapping[str, Any]) -> str:
    name = student["started_from"]
    if student["commit"]:
        return f"[{name}]({constants.ENDPOINT}/{name}), commit `{student['commit']}`"
    return f"a folder named `{Path(name).name}`, which is not public"


def _training(record: Mapping[str, Any]) -> list[str]:
    training, data = record["training"], record["data"]
    examples = "a stream of examples" if data["num_examples"] is None else f"{data['num_examples']:,} examples"
    links = (f"[{each['name']}]({constants.ENDPOINT}/datasets/{each['name']})" for each in data["sources"])
    named = f" of {' and '.join(links)}" if data["sources"] else ""
    vocabulary = record["vocabulary"]
    lines = [
        f"{training['steps']:,} optimiser steps over {examples}{named}: {training['tokens']:,} tokens with padding, in "
        f"{training['seconds']:,.1f} seconds of wall-clock."
    ]
    of_step = training.get("weights_of_step", training["steps"])
    if of_step != training["steps"]:
        lines.append(f"Its weights are those of step {of_step:,}, the best of those that were evaluated and saved.")
    if training["teacher_share"] is not None:
        lines.append(f"The teacher took {training['teacher_share']:.0%} of the operations of a step in which it spoke.")
    if vocabulary:
        lines.append(f"Its tokenizer has {vocabulary['size']:,} tokens.")
    return lines
