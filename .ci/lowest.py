"""Prints the lowest version of each package that pyproject.toml declares, as constraints for pip."""

import re
import tomllib
from itertools import chain
from pathlib import Path

PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]


def lowest_versions() -> dict[str, str]:
    """Name of each package that is needed, or by an extra, and its lower bound."""
    wanted = [*PROJECT["dependencies"], *chain.from_iterable(PROJECT["optional-dependencies"].values())]
    others = [each for each in wanted if not each.startswith(f"{PROJECT['name']}[")]
    found = {each: re.match(r"([\w.-]+)(?:\[[^]]*\])?>=([\w.]+)", each) for each in others}
    without = [each for each, match in found.items() if match is None]
    if without:
        raise SystemExit(f"pyproject.toml has no lower bound for {', '.join(without)}")
    return {match[1]: match[2] for match in found.values() if match}


if __name__ == "__main__":
    print("\n".join(f"{name}=={version}" for name, version in lowest_versions().items()))
