"""The memory that the README of the training configurations states is what its command prints, and adds up."""

import subprocess
import sys

import pytest
from readme_commands import CONFIGS, README

from benchmarks.memory_table import ENGINES, table


def test_the_readme_shows_what_the_command_prints() -> None:
    command = "python -m benchmarks.memory_table"
    assert f"`{command}`" in README
    printed = subprocess.run(
        [sys.executable, *command.split()[1:]], capture_output=True, text=True, check=True, cwd=CONFIGS.parent
    )
    assert printed.stdout.strip() == table()
    assert table() in README


def test_every_configuration_of_an_engine_has_a_row() -> None:
    files = [*CONFIGS.glob("deepspeed/*"), *CONFIGS.glob("accelerate/*")]
    assert {str(file.relative_to(CONFIGS)) for file in files} == ENGINES.keys()


# A 1B student: 16 bytes per parameter without any division, and 0.3B of a teacher in float32.
@pytest.mark.parametrize(
    ("file", "formula", "gigabytes"),
    [
        ("accelerate/ddp.yaml", "16 N + 4 T", 16 + 1.2),
        ("deepspeed/zero1.json", "4 N + 12 N/G + 4 T", 4 + 1.5 + 1.2),
        ("deepspeed/zero2.json", "2 N + 14 N/G + 4 T", 2 + 1.75 + 1.2),
        ("deepspeed/zero2_offload.json", "2 N + 4 T", 2 + 1.2),
        ("deepspeed/zero3.json", "16 N/G + 2 min(N, 10⁹) + 4 T", 2 + 2 + 1.2),
        ("deepspeed/zero3_offload.json", "2 min(N, 10⁹) + 4 T", 2 + 1.2),
        ("accelerate/fsdp2.yaml", "16 N/G + 4 T", 2 + 1.2),
        ("accelerate/multi_node_zero3.yaml", "16 N/G + 2 min(N, 10⁹) + 4 T", 1 + 2 + 1.2),
    ],
)
def test_a_formula_is_what_its_figure_is_computed_from(file: str, formula: str, gigabytes: float) -> None:
    assert ENGINES[file].formula() == formula
    assert ENGINES[file].gigabytes(1e9) == pytest.approx(gigabytes)


def test_weights_that_are_gathered_at_a_time_are_bounded() -> None:
    engine = ENGINES["deepspeed/zero3_offload.json"]
    assert engine.gigabytes(7e9) - 4 * 0.3 * 7 == pytest.approx(2)
    assert engine.gigabytes(4e8) - 4 * 0.3 * 0.4 == pytest.approx(0.8)
