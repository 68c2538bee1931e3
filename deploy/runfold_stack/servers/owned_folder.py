"""Files in a folder that may belong to another user, opened so that no link leads root elsewhere.

Root's servers keep their files in a folder of the user that they run as, and what root writes there
must not end up in a file of root's because that user has put a link in its place. So in a folder
that others can change, names are looked up in the open folder itself, a link is not followed, and
what is opened is a plain file without a second name. In a folder of one's own links are followed.
"""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from runfold_stack.errors import StackError


@dataclass(frozen=True, slots=True)
class Identity:
    """A user to become, and the one capability to keep while at it."""

    uid: int
    gid: int
    capability: int | None = None


_REMEDY: Final = "remove it, or start the servers as the user whose folder it is"


@contextmanager
def open_folder(path: Path, within: int | None = None) -> Iterator[int]:
    """The folder as a descriptor; `path` is a name if `within` is that of the folder it is in.

    Raises `StackError` for a link, unless only the caller can have made it.
    """
    fd = _open(path, os.O_RDONLY | os.O_DIRECTORY, within)
    try:
        yield fd
    finally:
        os.close(fd)


@contextmanager
def open_parent(path: Path) -> Iterator[int]:
    """The folder that `path` is in, as a descriptor: it is looked up as it is written."""
    fd = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def open_file(path: Path, flags: int, within: int, owner: "Identity | None" = None) -> int:
    """The file `path`, by its last part, in the open folder `within`; one that is new is private.

    With `owner` it belongs to that user from then on. Raises `StackError` for what is no plain
    file, and `OSError`.
    """
    fd = _open(path, flags, within)
    try:
        _check_plain(path, fd, within)
        if owner is not None:
            os.fchown(fd, owner.uid, owner.gid)
        os.set_blocking(fd, True)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _check_plain(path: Path, fd: int, within: int) -> None:
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        raise StackError(f"{path} is not a file: {_REMEDY}")
    if status.st_nlink > 1 and _may_be_changed_by_others(within):
        raise StackError(f"{path} is another name of a file elsewhere: {_REMEDY}")


def read_text(path: Path, within: int) -> str:
    """All of a file; raises as `open_file` does."""
    with open(open_file(path, os.O_RDONLY, within), encoding="utf-8", errors="replace") as file:
        return file.read()


def replace_text(path: Path, text: str, within: int, owner: "Identity | None") -> None:
    """Write a file that is there whole or as it was, whatever lies in the place of its draft."""
    draft = path.with_name(f"{path.name}.new")
    unlink(draft, within)
    fd = open_file(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, within, owner)
    with open(fd, "w", encoding="utf-8") as file:
        file.write(text)
    os.replace(draft.name, path.name, src_dir_fd=within, dst_dir_fd=within)


def unlink(path: Path, within: int) -> None:
    """Remove a name, if it is there."""
    try:
        os.unlink(path.name, dir_fd=within)
    except FileNotFoundError:
        return


def _open(path: Path, flags: int, within: int | None) -> int:
    flags |= os.O_CLOEXEC | os.O_NONBLOCK  # nothing waits for the other end of a pipe
    if within is None:
        with open_parent(path) as parent:
            return _open(path, flags, parent)
    if _may_be_changed_by_others(within):
        flags |= os.O_NOFOLLOW
    try:
        return os.open(path.name, flags, 0o600, dir_fd=within)
    except OSError as error:
        kind = _kind_of(path.name, within)
        if flags & os.O_NOFOLLOW and stat.S_ISLNK(kind):
            raise StackError(
                f"{path} is a link in a folder that another user can change, so it is not "
                f"followed: {_REMEDY}"
            ) from None
        if error.errno == errno.ENXIO:
            raise StackError(f"{path} is not a file: {_REMEDY}") from None
        error.filename = str(path)
        raise


def _may_be_changed_by_others(folder: int) -> bool:
    """An ordinary user's group is often a private one; root trusts no group."""
    status, user = os.fstat(folder), os.geteuid()
    others = 0o002 if user else 0o022
    return status.st_uid not in (0, user) or bool(status.st_mode & others)


def _kind_of(name: str, folder: int) -> int:
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
    except OSError:
        return 0
