"""What a document shows: blocks of code, and commands in them and in the running text."""

import re
from dataclasses import dataclass
from typing import Any

_BLOCK = re.compile(
    r"^(?:<!-- not run: (?P<reason>.+?) -->\n+)?```(?P<language>\w+)(?P<more>[^\n]*)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
_PROGRAMS = r"(hf-dwt|make|python -m)"


@dataclass(frozen=True)
class Block:
    """A block of code.

    Attributes:
        language: As it is named at its beginning.
        text: Between the fences.
        line: Where it begins, from 1.
        file: That it is the content of, by its title; None if it is to be run.
        reason: Why it is not run, None if it is.
    """

    language: str
    text: str
    line: int
    file: str | None = None
    reason: str | None = None


def blocks_of(document: str) -> list[Block]:
    """The blocks in their order."""
    return [_block(document, found) for found in _BLOCK.finditer(document)]


def commands_of(shell: str) -> list[str]:
    """Commands of a shell's text in their order, without comments and loops."""
    lines = [line.partition("#")[0] for line in shell.replace("\\\n", " ").splitlines()]
    parts = [part.strip() for line in lines for part in re.split(r"&&|;|\bdo\b", line)]
    return [" ".join(part.replace("$seed", "0").split()) for part in parts if part and not re.match("for |done", part)]


def inline_commands(document: str) -> list[str]:
    """Commands of the running text."""
    outside = _BLOCK.sub("", document)
    found = [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", outside)]
    return [command for code in found if re.search(rf"(^|; do ){_PROGRAMS} ", code) for command in commands_of(code)]


def _block(document: str, found: re.Match[str]) -> Block:
    title: Any = re.search(r'title="([^"]+)"', found["more"])
    line = document.count("\n", 0, found.start("language")) + 1
    return Block(found["language"], found["text"], line, title and title[1], found["reason"])
