"""Folders that results go to: whether they can is known before any work."""

import os
from pathlib import Path


def require_writable(folder: str | Path, option: str) -> None:
    """Check that files can be written into a folder, which need not be there yet.

    Args:
        folder: Results go there.
        option: That names it.

    Raises:
        NotADirectoryError: If a file is in its place.
        PermissionError: If nothing may be written there.
    """
    path = Path(folder).absolute()
    nearest = next(each for each in (path, *path.parents) if each.exists())
    if not nearest.is_dir():
        raise NotADirectoryError(f"`{option}` is {str(folder)!r}, but {nearest} is a file: name another folder.")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise PermissionError(f"`{option}` is {str(folder)!r}, but nothing may be written in {nearest}: name another.")
