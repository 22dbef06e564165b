"""Memory that each file in trainer_configs/ asks of a GPU, by arithmetic: `python -m benchmarks.memory_table`.

Counted is what is kept from step to step in mixed precision with Adam. bfloat16 under DeepSpeed: 2 bytes of weights and
2 of gradients per parameter, 12 of optimizer states (weights in float32 and two moments). Under PyTorch's autocast: 4
of weights, 4 of gradients, 8 of states. A replicated teacher in float32 takes 4 bytes per parameter on each GPU.

Reference:
    Rajbhandari et al., 2020 (https://arxiv.org/abs/1910.02054), figure 1; Ren et al., 2021
    (https://arxiv.org/abs/2101.06840), section 3, for offloading.
"""

from dataclasses import dataclass, field

DEEPSPEED = {"weights": 2, "gradients": 2, "states": 12}
AUTOCAST = {"weights": 4, "gradients": 4, "states": 8}
EVERYTHING = frozenset(DEEPSPEED)

STUDENTS = {"0.4B": 0.4e9, "1B": 1e9, "7B": 7e9}
TEACHER_SHARE = 0.3
TEACHER_BYTES = 4
NUM_GPUS = 8
# `stage3_max_live_parameters` of DeepSpeed, which the files leave as it is: so many may be gathered at a time.
MOST_LIVE = 1e9


@dataclass(frozen=True)
class Engine:
    """Where an engine keeps a student.

    Attributes:
        bytes: Per parameter of the student, of weights, gradients and optimizer states.
        split: Which of these are divided among the GPUs.
        offloaded: Which of these are in the machine's memory instead.
        num_gpus: All of them, over machines.
        gathers: Weights are put together for the moment, as ZeRO-3 does.
    """

    bytes: dict[str, int] = field(default_factory=lambda: DEEPSPEED)
    split: frozenset[str] = frozenset()
    offloaded: frozenset[str] = frozenset()
    num_gpus: int = NUM_GPUS
    gathers: bool = False

    def whole_and_share(self) -> tuple[int, int]:
        """Bytes per parameter that each GPU keeps, and that all GPUs keep together."""
        kept = {name: size for name, size in self.bytes.items() if name not in self.offloaded}
        share = sum(size for name, size in kept.items() if name in self.split)
        return sum(kept.values()) - share, share

    def formula(self) -> str:
        """Bytes on each GPU, of N parameters of the student, T of the teacher and G GPUs."""
        whole, share = self.whole_and_share()
        terms = {f"{whole} N": whole, f"{share} N/G": share, "2 min(N, 10⁹)": self.gathers, f"{TEACHER_BYTES} T": True}
        return " + ".join(term for term, counts in terms.items() if counts)

    def gigabytes(self, num_parameters: float) -> float:
        """The formula's value for a student of so many parameters, in 10⁹ bytes."""
        whole, share = self.whole_and_share()
        student = whole * num_parameters + share * num_parameters / self.num_gpus
        gathered = DEEPSPEED["weights"] * min(num_parameters, MOST_LIVE) if self.gathers else 0
        return (student + gathered + TEACHER_BYTES * TEACHER_SHARE * num_parameters) / 1e9


LATE = frozenset({"gradients", "states"})
ZERO2 = Engine(split=LATE)
ZERO3 = Engine(split=EVERYTHING, gathers=True)
ENGINES = {
    "deepspeed/zero0.json": Engine(),
    "deepspeed/zero1.json": Engine(split=frozenset({"states"})),
    "deepspeed/zero2.json": ZERO2,
    "deepspeed/zero2_offload.json": Engine(split=LATE, offloaded=LATE),
    "deepspeed/zero3.json": ZERO3,
    "deepspeed/zero3_offload.json": Engine(split=EVERYTHING, offloaded=EVERYTHING, gathers=True),
    "accelerate/ddp.yaml": Engine(AUTOCAST),
    "accelerate/fsdp2.yaml": Engine(AUTOCAST, split=EVERYTHING),
    "accelerate/deepspeed_zero2.yaml": ZERO2,
    "accelerate/deepspeed_zero3.yaml": ZERO3,
    "accelerate/multi_node_zero3.yaml": Engine(split=EVERYTHING, gathers=True, num_gpus=2 * NUM_GPUS),
}


def table() -> str:
    """The table, in Markdown."""
    lines = [f"| file | GPUs | bytes on each GPU | {' | '.join(STUDENTS)} |", f"|---|---|---|{'---|' * len(STUDENTS)}"]
    for name, engine in ENGINES.items():
        cells = [f"{engine.gigabytes(size):.1f} GB" for size in STUDENTS.values()]
        lines.append(f"| `{name}` | {engine.num_gpus} | {engine.formula()} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
