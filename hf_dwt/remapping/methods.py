"""The methods that have names: each is one way to grow the width and one to grow the depth."""

from collections.abc import Mapping

from hf_dwt.remapping.depth import DEPTH_METHODS
from hf_dwt.remapping.width import WIDTH_METHODS

RANDOM = "random"

# Name -> width method, depth method. bert2BERT, from which `fpi` and `aki` come, deepens by stacking.
METHODS: Mapping[str, tuple[str, str]] = {
    "exact": ("exact", "identity"),
    "near": ("near", "identity"),
    "repeat_last": ("exact", "repeat_last"),
    "stack": ("exact", "stack"),
    "interleave": ("exact", "interleave"),
    "spread": ("exact", "spread"),
    "fpi": ("fpi", "stack"),
    "aki": ("aki", "stack"),
}


def width_and_depth(method: str, width_method: str | None, depth_method: str | None) -> tuple[str, str]:
    """Resolve what a user asked for; a method registered by the user may be named as `method` too.

    Raises:
        ValueError: If there is no such method.
    """
    if method in METHODS:
        width, depth = METHODS[method]
    elif method in WIDTH_METHODS:
        width, depth = method, "identity"
    elif method in DEPTH_METHODS:
        width, depth = "exact", method
    else:
        known = ", ".join([RANDOM, *METHODS, *sorted({*WIDTH_METHODS, *DEPTH_METHODS} - {*METHODS})])
        raise ValueError(f"There is no method {method!r}. Known: {known}.")
    width, depth = width_method or width, depth_method or depth
    if width not in WIDTH_METHODS:
        raise ValueError(f"There is no width method {width!r}. Known: {', '.join(WIDTH_METHODS)}.")
    if depth not in DEPTH_METHODS:
        raise ValueError(f"There is no depth method {depth!r}. Known: {', '.join(DEPTH_METHODS)}.")
    return width, depth
