"""One process at a time writes a cache: ranks of a launcher, for instance, all ask for the same one."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout
from transformers.utils import logging

logger = logging.get_logger(__name__)

_NAME = "cache.lock"


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Wait until no other process writes into a folder, which is made, and let the others wait meanwhile.

    A process that dies keeps nobody waiting, where the file system knows locks.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / _NAME)
    with suppress(NotImplementedError):
        try:
            lock.acquire(timeout=0)
        except Timeout:
            logger.warning(f"Another process writes the cache {str(folder)!r}: waiting for what it writes.")
            lock.acquire()
    try:
        yield
    finally:
        if lock.is_locked:
            # A process that has opened it already does not take it for the lock: filelock looks whether it is gone.
            (folder / _NAME).unlink(missing_ok=True)
        lock.release()
