"""What `growth_sweep` measured, sorted and counted."""

import json
import re
from pathlib import Path
from typing import Any

import transformers
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

TOLERANCE = 1e-4
BAR = 0.85
KINDS = ("width x2", "width x1.5", "width x1.5, near", "depth +2", "units x1.25", "together")
# The families of the list in the project's notes on growing, which must all be exact at twice the width.
FAMILIES = (
    *("BertForMaskedLM", "RobertaForMaskedLM", "DistilBertForMaskedLM", "ElectraForMaskedLM", "ElectraForCausalLM"),
    *("AlbertForMaskedLM", "DebertaForMaskedLM", "DebertaV2ForMaskedLM", "MPNetForMaskedLM", "ModernBertForMaskedLM"),
    *("GPT2LMHeadModel", "OPTForCausalLM", "GPTNeoXForCausalLM", "LlamaForCausalLM", "MistralForCausalLM"),
    *("Qwen2ForCausalLM", "Qwen3ForCausalLM", "Phi3ForCausalLM", "GemmaForCausalLM", "Gemma3ForCausalLM"),
    *("Olmo2ForCausalLM", "GraniteForCausalLM", "SmolLM3ForCausalLM"),
)


def sort_of(model: PreTrainedModel | None, name: str = "") -> str:
    """Dense, or what else it is, told by its configuration and its modules.

    Args:
        model: A tiny one; None if there is none, then the default configuration of the class alone is asked.
        name: Of the class, where there is no model.
    """
    try:
        config = model.config if model is not None else getattr(transformers, name).config_class()
    except Exception:
        return "unknown"
    values = config.to_dict()
    if _parts(config):
        return "composite"
    if values.get("is_encoder_decoder") and (model is None or model.config.is_encoder_decoder):
        return "encoder-decoder"
    if any(_counts_experts(key) and isinstance(value, int) and value > 1 for key, value in values.items()):
        return "mixture of experts"
    kinds = values.get("layer_types") or values.get("layers_block_type") or []
    if any("attention" not in str(kind) or "linear" in str(kind) for kind in kinds):
        return "state-space, recurrent or hybrid"
    if model is None:
        return "dense" if any("head" in key for key in values) else "no attention heads"
    if any("experts" in each for each, _ in model.named_parameters()):
        return "mixture of experts"
    if any("A_log" in each for each, _ in model.named_parameters()) or any(map(_is_causal, model.modules())):
        return "state-space, recurrent or hybrid"
    return "dense"


def _counts_experts(key: str) -> bool:
    return "experts" in key and "per_tok" not in key and "group" not in key


def _parts(config: PretrainedConfig) -> list[str]:
    """Configurations inside that describe models of their own."""
    inside = {name: getattr(config, name, None) for name in type(config).sub_configs}
    return [name for name, part in inside.items() if part is not None and _is_model(part)]


def _is_model(config: Any) -> bool:
    values = config if isinstance(config, dict) else config.to_dict()
    return any("layers" in key or "depth" in key for key in values)


def _is_causal(module: nn.Module) -> bool:
    """Whether a module is a depth-wise convolution that looks back only, as those of state-space layers do."""
    return (
        isinstance(module, nn.Conv1d)
        and module.groups == module.in_channels > 1
        and module.padding == (module.kernel_size[0] - 1,)
    )


def verdict(row: dict[str, Any], kind: str) -> str:
    """One cell: exact, how far off, refused, or what must not be."""
    found = row.get("growths", {}).get(kind)
    if found is None:
        return "-"
    if "refused" in found:
        return "refused"
    if "crashed" in found:
        return "CRASHED"
    if found.get("off in float64", found["off"]) <= TOLERANCE:
        return "exact" if found["off"] <= TOLERANCE else "exact (float64)"
    return f"off {found['off']:.1g}" if found["method"] == "near" else f"WRONG {found['off']:.1g}"


def write_tables(lines: Path, folder: Path) -> str:
    """Write growth_sweep.md, and return the counts."""
    rows = sorted((json.loads(line) for line in lines.read_text().splitlines()), key=lambda row: row["class"])
    counts = count(rows)
    (folder / "growth_sweep.md").write_text(_page(rows, counts))
    return "\n".join(f"{name}: {value}" for name, value in counts.items())


def count(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The numbers that the bars are about."""
    built = [row for row in rows if row.get("growths")]
    dense = [row for row in built if row["sort"] == "dense"]
    unjudged = [row for row in rows if "unjudged" in row]
    num_dense = len(dense) + sum(row["sort"] == "dense" for row in unjudged)
    exact = [row for row in dense if _is_exact(row, "width x2")]
    cells = [(row, kind) for row in built for kind in KINDS]
    families = [name for name in FAMILIES if any(row["class"] == name and _is_exact(row, "width x2") for row in rows)]
    return {
        "classes": len(rows),
        "built tiny": len(built),
        "not built tiny": sum("unbuilt" in row for row in rows),
        "not judged: the process died or ran out of time": len(unjudged),
        "exact at width x2, of any sort": sum(_is_exact(row, "width x2") for row in built),
        "dense and built tiny": len(dense),
        "dense and exact at width x2": len(exact),
        "share of the dense that is exact (bar 85 %)": f"{len(exact) / max(1, len(dense)):.1%}",
        "the same share if the dense that were not judged are not exact": f"{len(exact) / max(1, num_dense):.1%}",
        "listed families exact at width x2": f"{len(families)} of {len(FAMILIES)}",
        "silently wrong, of those judged": sum(verdict(row, kind).startswith("WRONG") for row, kind in cells),
        "neither grown nor refused (another exception)": sum(verdict(row, kind) == "CRASHED" for row, kind in cells),
        **{f"dense and exact: {kind}": sum(_is_exact(row, kind) for row in dense) for kind in KINDS},
    }


def _is_exact(row: dict[str, Any], kind: str) -> bool:
    return verdict(row, kind).startswith("exact")


def _page(rows: list[dict[str, Any]], counts: dict[str, Any]) -> str:
    versions = next(row for row in rows if "transformers" in row)
    built = [row for row in rows if row.get("growths")]
    page = [
        "# Growing every language model class of transformers",
        "",
        f"`python -m benchmarks.growth_sweep`; transformers {versions['transformers']}, torch {versions['torch']}.",
        "Tiny teachers of the default configuration with random weights, grown with `from_weak_teacher`; logits",
        "compared by the sweep itself. exact: at most 1e-4 standard deviations apart in float32, or in float64 where",
        "rounding hides it. off: what `near` is off by. WRONG: claimed exact, and is not. A class whose process died",
        "was not judged at all: it may be anything.",
        "",
        "| | |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value in counts.items()),
        "",
        "## Classes",
        "",
        f"| class | sort | {' | '.join(KINDS)} |",
        f"|---|---|{'---|' * len(KINDS)}",
        *(
            f"| {row['class']} | {row['sort']} | {' | '.join(verdict(row, kind) for kind in KINDS)} |"
            for row in sorted(built, key=lambda row: (row["sort"] != "dense", row["sort"], row["class"]))
        ),
        "",
        "## Refused, and why",
        "",
        *(f"- {row['class']}, {_refused_kinds(row)}" for row in built if _refused_kinds(row)),
        "",
        "## Not judged, and why",
        "",
        *(f"- {row['class']} ({row['sort']}): {row['unjudged']}" for row in rows if "unjudged" in row),
        "",
        "## Not built or run tiny, and why",
        "",
        *(f"- {row['class']} ({row['sort']}): {_short(row['unbuilt'])}" for row in rows if "unbuilt" in row),
        "",
    ]
    return "\n".join(page)


def _refused_kinds(row: dict[str, Any]) -> str:
    """The reasons, each once, with the growths that it refused."""
    reasons: dict[str, list[str]] = {}
    for kind, found in row["growths"].items():
        if reason := found.get("refused", found.get("crashed")):
            reasons.setdefault(_short(reason), []).append(kind)
    return "; ".join(f"{', '.join(kinds)}: {reason}" for reason, kinds in reasons.items())


def _short(reason: str) -> str:
    first = re.split(r"(?<=[a-z)`])\. ", reason)[0].rstrip(".")
    return first if len(first) < 220 else f"{first[:216]} ..."
