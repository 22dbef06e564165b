"""What the site shows of the repository itself: files, help texts and settings, taken when it is built.

A page asks for it by a comment that stands alone on its line:

    <!-- include: trainer_configs/README.md | Memory -->   a file, or some of its sections
    <!-- help: train -->                                   what `hf-dwt train --help` prints at 80 columns;
                                                           `hf-dwt --help` without a command
    <!-- settings -->                                      the arguments that distillation adds
    <!-- study: weight -->                                 what the study's report says under such headings, or all

Links to what lies outside `docs` are written as they lead in the repository, and made to fit the site. Figures are
quoted as `_figures.py` says.
"""

import os
import posixpath
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any

from _figures import RESULTS, ROOT, up_to_date, without_sources
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

STUDY = f"{RESULTS}/study.md"

# Where files of the repository lie on the site, so that evidence and configurations can be opened.
_PUBLISHED = "files"
_PATTERNS = ("benchmarks/results/**/*.*", "trainer_configs/*/*.*")
_DIRECTIVE = re.compile(r"^<!-- (include|help|settings|study)(?:: (.+?))? -->$", re.MULTILINE)
_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the files to the site."""
    for path in published(ROOT):
        files.append(File.generated(config, f"{_PUBLISHED}/{path}", abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Put what was asked for in its place.

    Raises:
        PluginError: If figures of the page are not those of the results any more.
    """
    if up_to_date(markdown) != markdown:
        raise PluginError(f"docs/{page.file.src_uri} quotes old figures. Run: python docs/_figures.py")
    return filled_in(without_sources(markdown), page.file.src_uri)


def filled_in(markdown: str, page: str, root: Path = ROOT) -> str:
    """A page's text with what its comments ask for, its links made to fit the site.

    Args:
        markdown: With comments.
        page: Path of the page within `docs`.
        root: Of the repository.
    """
    writers: dict[str, Callable[[str], str]] = {
        "include": lambda asked: included(*_split(asked), page, root),
        "help": help_text,
        "settings": lambda _: settings_table(),
        "study": lambda asked: of_the_study(asked, page, root),
    }
    text = _LINK.sub(lambda link: _moved(link, posixpath.join("docs", posixpath.dirname(page)), page, root), markdown)
    return _DIRECTIVE.sub(lambda found: writers[found[1]](found[2] or ""), text)


@cache
def published(root: Path) -> list[str]:
    """Files of the repository that have a place on the site, by their paths there."""
    found = {path.relative_to(root).as_posix() for pattern in _PATTERNS for path in root.glob(pattern)}
    return sorted(found - {STUDY})


def included(path: str, headings: Sequence[str], page: str, root: Path = ROOT) -> str:
    """A file of the repository, or some of its sections in its own order, its links made to fit the page.

    Raises:
        ValueError: If it has no section of such a heading.
    """
    text = (root / path).read_text(encoding="utf-8")
    if headings:
        sections = re.split(r"^(?=## )", text, flags=re.MULTILINE)
        known = {section.partition("\n")[0].removeprefix("## "): section for section in sections[1:]}
        missing = [heading for heading in headings if heading not in known]
        if missing:
            raise ValueError(f"{path} has no section {missing[0]!r}, only {', '.join(known)}.")
        text = "\n".join(section for heading, section in known.items() if heading in headings)
    else:
        # The page has a title of its own.
        text = re.sub(r"\A# .*\n", "", text)
    return _LINK.sub(lambda link: _moved(link, posixpath.dirname(path), page, root), text).strip()


def _moved(link: re.Match[str], folder: str, page: str, root: Path) -> str:
    """A link of a folder of the repository as it leads from a page; its text alone, if the site lacks the file."""
    picture, text, target = link.groups()
    if re.match(r"[a-z]+:|#", target):
        return link[0]
    path, hash_mark, anchor = posixpath.normpath(posixpath.join(folder, target)).partition("#")
    if path == STUDY:
        path = "study.md"
    elif path in published(root):
        path = f"{_PUBLISHED}/{path}"
    elif path.startswith("docs/"):
        path = path.removeprefix("docs/")
    else:
        return text
    place = posixpath.relpath(path, posixpath.dirname(page) or ".")
    return f"{picture}[{text}]({place}{hash_mark}{anchor})"


def help_text(command: str) -> str:
    """What the command line prints of a command, of itself for an empty name."""
    asked = [sys.executable, "-m", "hf_dwt.cli", *command.split(), "--help"]
    plain = {"COLUMNS": "80", "NO_COLOR": "1", "PYTHONPATH": str(ROOT)}
    shown = subprocess.run(asked, env=os.environ | plain, capture_output=True, text=True, check=True, cwd=ROOT)
    return f"```text\n{shown.stdout.strip()}\n```"


def settings_table() -> str:
    """The arguments that distillation adds to those of `Trainer`, with their defaults."""
    from hf_dwt.arguments import DistillationArguments

    rows = [(f"`{each.name}`", f"`{each.default!r}`", each.metadata["help"]) for each in fields(DistillationArguments)]
    return "\n".join("| " + " | ".join(row) + " |" for row in [("argument", "default", "meaning"), ("---",) * 3, *rows])


def of_the_study(word: str, page: str, root: Path = ROOT) -> str:
    """The sections of the study's report whose headings hold a word, one level lower; the whole report for no word.

    Raises:
        ValueError: If no heading holds it.
    """
    if not word:
        return included(STUDY, (), page, root)
    titles = re.findall(r"^## (.+)$", (root / STUDY).read_text(encoding="utf-8"), flags=re.MULTILINE)
    wanted = [title for title in titles if word.lower() in title.lower()]
    if not wanted:
        raise ValueError(f"{STUDY} has no heading with {word!r}, only {', '.join(titles)}.")
    return re.sub(r"^#", "##", included(STUDY, wanted, page, root), flags=re.MULTILINE)


def _split(asked: str) -> tuple[str, list[str]]:
    path, *headings = (part.strip() for part in asked.split("|"))
    return path, headings
