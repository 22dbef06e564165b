"""A document of headings, text, tables and figures, as Markdown and as one HTML page that needs nothing else."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_STYLE = """
:root { color-scheme: light; }
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 54rem; margin: 0 auto; padding: 1rem; }
body { color: #111; background: #fff; }
h1, h2, h3 { line-height: 1.2; }
h2 { border-top: 1px solid #999; padding-top: 1rem; margin-top: 2.5rem; }
a { color: #0a4a8f; }
code, pre { font-family: ui-monospace, monospace; font-size: 0.9em; overflow-wrap: anywhere; white-space: pre-wrap; }
.table { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; font-size: 0.875rem; }
caption { text-align: left; font-weight: 600; padding-bottom: 0.25rem; }
th, td { border-bottom: 1px solid #bbb; padding: 0.25rem 0.6rem; text-align: left; vertical-align: top; }
thead th { border-bottom: 2px solid #333; }
td { font-variant-numeric: tabular-nums; }
figure { margin: 1.5rem 0; }
figure svg { width: 100%; height: auto; max-width: 46rem; display: block; }
figcaption { font-size: 0.875rem; color: #333; }
"""


@dataclass(frozen=True)
class Heading:
    """A title.

    Attributes:
        level: 1 to 3.
        text: Plain.
    """

    level: int
    text: str

    def markdown(self) -> str:
        """As Markdown."""
        return f"{'#' * self.level} {self.text}"

    def html(self) -> str:
        """As HTML."""
        return f"<h{self.level}>{escape(self.text)}</h{self.level}>"


@dataclass(frozen=True)
class Paragraph:
    """A paragraph.

    Attributes:
        text: With `code`, **stress** and bare addresses.
    """

    text: str

    def markdown(self) -> str:
        """As Markdown."""
        return self.text

    def html(self) -> str:
        """As HTML."""
        return f"<p>{_inline(self.text)}</p>"


@dataclass(frozen=True)
class Items:
    """A list.

    Attributes:
        texts: As in a paragraph.
    """

    texts: Sequence[str]

    def markdown(self) -> str:
        """As Markdown."""
        return "\n".join(f"- {text}" for text in self.texts)

    def html(self) -> str:
        """As HTML."""
        return "<ul>\n" + "\n".join(f"<li>{_inline(text)}</li>" for text in self.texts) + "\n</ul>"


@dataclass(frozen=True)
class Table:
    """A table whose first column names the rows.

    Attributes:
        caption: What it shows.
        columns: Their heads.
        rows: As many texts each.
    """

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    def markdown(self) -> str:
        """As Markdown."""
        lines = [self.columns, ["---"] * len(self.columns), *self.rows]
        table = "\n".join("| " + " | ".join(each.replace("|", "\\|") for each in line) + " |" for line in lines)
        return f"{self.caption}:\n\n{table}"

    def html(self) -> str:
        """As HTML."""
        head = "".join(f'<th scope="col">{_inline(each)}</th>' for each in self.columns)
        rows = (
            f'<tr><th scope="row">{_inline(first)}</th>'
            + "".join(f"<td>{_inline(each)}</td>" for each in rest)
            + "</tr>"
            for first, *rest in self.rows
        )
        caption = escape(self.caption)
        return (
            f'<div class="table" role="region" aria-label="{caption}" tabindex="0">\n<table>\n'
            f"<caption>{caption}</caption>\n<thead><tr>{head}</tr></thead>\n<tbody>\n" + "\n".join(rows)
        ) + "\n</tbody>\n</table>\n</div>"


@dataclass(frozen=True)
class Figure:
    """A plot.

    Attributes:
        name: Of its file beside the Markdown, without the ending.
        caption: Below it.
        alt: What it shows, for those who do not see it.
        svg: The drawing.
    """

    name: str
    caption: str
    alt: str
    svg: str

    def markdown(self) -> str:
        """As Markdown, with a link to the drawing."""
        return f"![{self.alt}]({FIGURES}/{self.name}.svg)\n\n{self.caption}"

    def html(self) -> str:
        """As HTML, the drawing inside."""
        return f"<figure>\n{self.svg}\n<figcaption>{_inline(self.caption)}</figcaption>\n</figure>"


Block = Heading | Paragraph | Items | Table | Figure
FIGURES = "study_figures"


def as_markdown(blocks: Sequence[Block]) -> str:
    """Render a document as Markdown; its figures are files of the folder `FIGURES`."""
    return "\n\n".join(block.markdown() for block in blocks) + "\n"


def as_html(title: str, blocks: Sequence[Block]) -> str:
    """Render a document as one HTML page that loads nothing."""
    body = "\n".join(block.html() for block in blocks)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8"/>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1"/>\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n{body}\n</main>\n"
        "</body>\n</html>\n"
    )


def _inline(text: str) -> str:
    """Text with its code and its addresses marked up."""
    pieces = re.split(r"(`[^`]+`|\*\*[^*]+\*\*|https://[^\s,;)]+)", text)
    return "".join(map(_piece, pieces))


def _piece(text: str) -> str:
    if text.startswith("`") and text.endswith("`") and len(text) > 2:
        return f"<code>{escape(text[1:-1])}</code>"
    if text.startswith("**") and text.endswith("**") and len(text) > 4:
        return f"<strong>{_inline(text[2:-2])}</strong>"
    if text.startswith("https://"):
        address = text.rstrip(".")
        return f'<a href="{escape(address)}">{escape(address)}</a>{text[len(address) :]}'
    return escape(text)
