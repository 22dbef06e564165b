"""Failures that pass by themselves, and how long to wait for that."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import httpx2
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

Result = TypeVar("Result")

_TOO_MANY_REQUESTS = 429


@dataclass(frozen=True)
class Patience:
    """How much trouble a request may give.

    Attributes:
        attempts: How often it is tried, >= 1.
        first_wait: Seconds before the second attempt; doubled each time.
        limit: Seconds that an attempt may take before it counts as stalled, apart from what it has to send.

    Raises:
        ValueError: If it is never tried.
    """

    attempts: int = 4
    first_wait: float = 2.0
    limit: float = 300.0

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise ValueError(f"`attempts` must be at least 1, got {self.attempts}.")


class Stalled(TimeoutError):
    """The Hub has not answered in time."""


def status_of(error: Exception) -> int | None:
    """Status of the answer that an error stands for, None without an answer."""
    return error.response.status_code if isinstance(error, HfHubHTTPError) else None


def is_transient(error: Exception) -> bool:
    """Tell whether the same request may succeed later: too many requests, a server's error, a lost connection."""
    status = status_of(error)
    if status is not None:
        return status == _TOO_MANY_REQUESTS or status >= 500
    if isinstance(error, LocalEntryNotFoundError):
        # So the client tells that it could not ask, and has nothing in the cache either.
        return isinstance(error.__cause__, Exception) and is_transient(error.__cause__)
    # The Xet client tells of its connections by the built-in errors.
    return isinstance(error, httpx2.TransportError | Stalled | ConnectionError | TimeoutError | RuntimeError)


def patiently(attempt: Callable[[int], Result], patience: Patience, limit: float | None = None) -> Result:
    """Call with 0, 1, ... until it succeeds, fails for good or has failed `patience.attempts` times.

    Args:
        attempt: What to do; it may run in a thread of its own.
        patience: How often, and how long.
        limit: Seconds for each attempt, instead of the limit of `patience`.

    Raises:
        Exception: What the last attempt has raised; `Stalled` if it was left behind.
    """
    for number in range(patience.attempts):
        try:
            return within(patience.limit if limit is None else limit, partial(attempt, number))
        except Exception as error:
            if not is_transient(error) or number == patience.attempts - 1:
                raise
            time.sleep(patience.first_wait * 2**number)
    raise AssertionError("there is at least one attempt")


def within(seconds: float, call: Callable[[], Result]) -> Result:
    """Call in a thread of its own, which is left behind if it stalls: the client itself waits for ever.

    Raises:
        Stalled: If it is not done in time.
    """
    results: list[Any] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(call())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        raise Stalled(f"no answer within {seconds:g} seconds")
    if errors:
        raise errors[0]
    result: Result = results[0]
    return result
