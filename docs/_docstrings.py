"""How docstrings are read for the site: an `Example:` is one of griffe's `Examples:`, which knows `>>>`."""

import re
from typing import Any

from griffe import Extension, Object

_HEADING = re.compile(r"^(\s*)Example:$", re.MULTILINE)


class ExampleSections(Extension):
    """Give the heading the name under which griffe renders code, not a quotation in a box."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Change the docstring of an object that has just been read."""
        if obj.docstring is not None:
            obj.docstring.value = _HEADING.sub(r"\1Examples:", obj.docstring.value)
