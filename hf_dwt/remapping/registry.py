"""Methods that are known by a name, those of users among them."""

from collections.abc import Callable
from typing import Generic, TypeVar

Method = TypeVar("Method")


class Registry(dict[str, Method], Generic[Method]):
    """Methods by name; the names that it starts with stay what they are.

    Args:
        what: What its methods are called in messages, such as "width method".
        built_in: The methods that it starts with.
    """

    def __init__(self, what: str, built_in: dict[str, Method]) -> None:
        super().__init__(built_in)
        self._what, self._built_in = what, frozenset(built_in)

    def register(self, name: str) -> Callable[[Method], Method]:
        """A decorator that makes a method known; a name of one's own may be taken again, as by a notebook's cell.

        Raises:
            ValueError: If the name is that of a built-in method.
        """
        if name in self._built_in:
            raise ValueError(f"{name!r} is a built-in {self._what}: register yours under another name.")

        def register(method: Method) -> Method:
            self[name] = method
            return method

        return register
