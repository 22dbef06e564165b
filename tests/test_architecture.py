"""The rules of the package's own shape: floors, lazy imports, printing, sizes, examples."""

import ast
import doctest
import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import hf_dwt
import hf_dwt.data
from hf_dwt import weighting

PACKAGE = Path(hf_dwt.__file__).parent
SOURCES = {path.relative_to(PACKAGE).as_posix(): path.read_text() for path in sorted(PACKAGE.rglob("*.py"))}

# A room is a module, or a package with all of its modules. It imports from lower floors and from itself only, so no
# two rooms of one floor know of each other. The package's own `__init__` is the roof: it names everything.
FLOORS = [
    {"names", "unsharded"},
    {
        *("_version", "losses", "language_models", "signals", "verdicts", "vocabulary", "weights", "sections"),
        *("adapters", "hub", "model_files", "packages", "self_restoring"),
    },
    {"remapping", "fused_losses", "weighting"},
    {"topk_losses"},
    {"last_layer"},
    {"positions"},
    {"heads"},
    {"arguments", "teacher", "data", "evaluation", "costs", "probe", "sampling"},
    {"preflight", "training_log", "events", "checkpoints", "workers", "course", "placement", "identity", "parents"},
    {"collators"},
    {"publishing"},
    {"feeding", "compatibility"},
    {"engines"},
    {"adapting", "cache", "teaching"},
    {"base_teaching"},
    {"cached_teaching"},
    {"hearing"},
    {"trainer"},
    {"assess", "comparison", "factory"},
    {"plots", "finetuning"},
    {"cli"},
    {"__init__"},
]
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}

# What the pure rooms may take from outside of the standard library.
PURE_ROOMS = {"losses": {"torch"}, "signals": set(), "weighting": set(), "vocabulary": set(), "_version": set()}


def room_of(path: str) -> str:
    return path.split("/")[0].removesuffix(".py")


def imported_modules(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports inside the package are absolute"
            assert node.module is not None
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imported_rooms(source: str) -> set[str]:
    """Rooms of this package that a module takes something from; a name exported at the top comes from the roof."""
    rooms = set()
    for name in imported_modules(source):
        top, *rest = name.split(".")
        if top == "hf_dwt":
            rooms.add(rest[0] if rest and rest[0] in FLOOR_OF else "__init__")
    return rooms


def wrong_imports(room: str, source: str) -> set[str]:
    return {other for other in imported_rooms(source) - {room} if FLOOR_OF[other] >= FLOOR_OF[room]}


def foreign_packages(source: str) -> set[str]:
    return {name.split(".")[0] for name in imported_modules(source)} - {"hf_dwt", *sys.stdlib_module_names}


def calls_print(source: str) -> bool:
    calls = (node.func for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call))
    return any(isinstance(called, ast.Name) and called.id == "print" for called in calls)


def in_a_fresh_interpreter(program: str) -> None:
    subprocess.run([sys.executable, "-c", program], check=True)


# Floors


def test_every_room_has_a_floor_and_every_floor_its_rooms():
    assert {room_of(path) for path in SOURCES} == FLOOR_OF.keys()


@pytest.mark.parametrize("path", SOURCES)
def test_a_module_imports_only_from_lower_floors_or_its_own_package(path):
    assert wrong_imports(room_of(path), SOURCES[path]) == set()


@pytest.mark.parametrize(
    ("room", "source", "wrong"),
    [
        ("losses", "from hf_dwt.trainer import DWTTrainer", {"trainer"}),
        ("losses", "import hf_dwt.trainer", {"trainer"}),
        ("losses", "from hf_dwt import trainer", {"trainer"}),
        ("losses", "from hf_dwt.signals import Signals", {"signals"}),
        ("losses", "def late():\n    from hf_dwt.cli.train import train", {"cli"}),
        ("trainer", "from hf_dwt import DWTTrainer", {"__init__"}),
        ("trainer", "from hf_dwt.losses import soft_loss\nfrom hf_dwt import checkpoints", set()),
        ("data", "from hf_dwt.data.padding import pad_examples", set()),
        ("data", "from hf_dwt.evaluation.held_out import held_out_metrics", {"evaluation"}),
    ],
)
def test_an_import_from_above_or_beside_is_noticed(room, source, wrong):
    assert wrong_imports(room, source) == wrong


@pytest.mark.parametrize("room", PURE_ROOMS)
def test_pure_rooms_need_next_to_nothing(room):
    assert foreign_packages(SOURCES[f"{room}.py"]) <= PURE_ROOMS[room]


def test_a_foreign_package_is_noticed():
    assert foreign_packages("import numpy as np\nfrom torch.nn import functional\nimport math") == {"numpy", "torch"}


def test_contributors_are_shown_the_floors_as_they_are():
    text = (PACKAGE.parent / "CONTRIBUTING.md").read_text()
    (drawing,) = re.findall(r"```\n(.*?)```", text, flags=re.DOTALL)
    one_line_each = re.sub(r",\n +", ", ", drawing)
    drawn = re.findall(r"^ *(\d+)  ((?:\w+, )*\w+)", one_line_each, flags=re.MULTILINE)
    assert {int(floor): set(rooms.split(", ")) for floor, rooms in drawn} == dict(enumerate(FLOORS))
    assert len(text.splitlines()) <= 45, "one screen"


# Habits


@pytest.mark.parametrize("path", [path for path in SOURCES if room_of(path) != "cli"])
def test_only_the_command_line_prints(path):
    assert not calls_print(SOURCES[path])


def test_printing_is_noticed_in_code_but_not_in_text():
    assert calls_print("def f(x):\n    print(x)")
    assert not calls_print('"""print(1)"""\nprinter.print(2)')


@pytest.mark.parametrize("path", SOURCES)
def test_no_file_is_longer_than_350_lines(path):
    assert len(SOURCES[path].splitlines()) <= 350


def test_no_module_is_a_drawer_for_the_rest():
    assert not {Path(path).stem for path in SOURCES} & {"utils", "common", "helpers", "constants"}


# Names


def test_importing_the_package_imports_neither_torch_nor_transformers():
    heavy = "{'torch', 'transformers', 'datasets', 'numpy', 'accelerate'}"
    in_a_fresh_interpreter(f"import sys, hf_dwt; assert not {heavy} & sys.modules.keys()")


def test_a_loss_imports_torch_when_it_is_first_used_but_not_transformers():
    program = (
        "import sys, hf_dwt; hf_dwt.soft_loss; assert 'torch' in sys.modules; assert 'transformers' not in sys.modules"
    )
    in_a_fresh_interpreter(program)


@pytest.mark.parametrize("name", hf_dwt.__all__)
def test_every_exported_name_is_there(name):
    assert getattr(hf_dwt, name) is not None
    assert name in dir(hf_dwt)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'hf_dwt' has no attribute 'DWTrainer'"):
        _ = hf_dwt.DWTrainer


def test_exported_names_are_sorted_and_known_to_type_checkers():
    assert hf_dwt.__all__ == sorted(hf_dwt.__all__)
    imported = {name.split(".")[-1] for name in imported_modules(SOURCES["__init__.py"])}
    assert set(hf_dwt.__all__) <= imported


# Examples


@pytest.mark.parametrize("package", [hf_dwt, hf_dwt.data], ids=lambda package: package.__name__)
def test_every_exported_name_has_an_example(package):
    names = [name for name in package.__all__ if name != "__version__"]
    assert [name for name in names if ">>>" not in getattr(package, name).__doc__] == []


@pytest.mark.parametrize("path", [path for path, source in SOURCES.items() if ">>>" in source])
def test_examples_do_what_they_say(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(weighting, "_policies", dict(weighting._policies))
    name = path.removesuffix(".py").removesuffix("__init__").rstrip("/").replace("/", ".")
    result = doctest.testmod(importlib.import_module(f"hf_dwt.{name}".rstrip(".")), optionflags=doctest.ELLIPSIS)
    assert result.attempted > 0
    assert result.failed == 0


def test_an_example_that_is_wrong_is_noticed(capsys):
    (example,) = doctest.DocTestFinder().find(type("Wrong", (), {"__doc__": ">>> 1 + 1\n3\n"}), "wrong", module=False)
    assert doctest.DocTestRunner().run(example).failed == 1
    assert "Expected:\n    3" in capsys.readouterr().out
