"""What a function returned to `Trainer`, for whoever needs more of it than `Trainer` hands on."""

from collections.abc import Callable
from typing import Any


class Recorded:
    """Calls a function and keeps its last result.

    Args:
        function: Called with whatever comes.

    Attributes:
        result: Of the last call, None before the first.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.result: Any = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Return what the function returns."""
        self.result = self.function(*args, **kwargs)
        return self.result
