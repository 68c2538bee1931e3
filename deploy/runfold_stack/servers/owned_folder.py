"""Open files in a folder of another user without following that user's links.

Servers started by root run as another user. If that user replaces a file by a link, root must not
write through it into a file of its own. So in a folder that other users can change, names are
looked up in the open folder itself (`dir_fd`), links are not followed, and only plain files with a
single name are opened. In folders that no other user can change, links are followed.
"""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, NamedTuple

from runfold_stack.errors import StackError


class Identity(NamedTuple):
    """The user that a server runs as, and the one capability of root's that it keeps, if any."""

    uid: int
    gid: int
    capability: int | None = None


_REMEDY: Final = "remove it, or start the servers as the user whose folder it is"


@contextmanager
def open_folder(path: Path, within: int | None = None) -> Iterator[int]:
    """Yield a descriptor of the folder; with `within`, an open folder, only its last part counts.

    Raise `StackError` for a link that another user may have made.
    """
    fd = _open(path, os.O_RDONLY | os.O_DIRECTORY, within)
    try:
        yield fd
    finally:
        os.close(fd)


def open_file(path: Path, flags: int, within: int, owner: Identity | None = None) -> int:
    """Open the file named by the last part of `path` in the open folder `within`.

    New files are private (0600) and given to `owner`. Raise `StackError` for a special file.
    """
    fd = _open(path, flags, within)
    try:
        _check_plain(path, os.fstat(fd), within)
        if owner is not None:
            os.fchown(fd, owner.uid, owner.gid)
        os.set_blocking(fd, True)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _check_plain(path: Path, status: os.stat_result, within: int) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise StackError(f"{path} is not a file: {_REMEDY}")
    if status.st_nlink > 1 and _may_be_changed_by_others(within):
        raise StackError(f"{path} is a hard link to another file: {_REMEDY}")


def read_text(path: Path, within: int) -> str:
    """Return the content of a file; raise as `open_file` does."""
    with open(open_file(path, os.O_RDONLY, within), encoding="utf-8", errors="replace") as file:
        return file.read()


def replace_text(path: Path, text: str, within: int, owner: Identity | None) -> None:
    """Replace a file atomically; a leftover draft of an earlier attempt is removed."""
    draft = path.with_name(f"{path.name}.new")
    unlink(draft, within)
    fd = open_file(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, within, owner)
    with open(fd, "w", encoding="utf-8") as file:
        file.write(text)
    os.replace(draft.name, path.name, src_dir_fd=within, dst_dir_fd=within)


def unlink(path: Path, within: int) -> None:
    with suppress(FileNotFoundError):
        os.unlink(path.name, dir_fd=within)


def _open(path: Path, flags: int, within: int | None) -> int:
    flags |= os.O_CLOEXEC | os.O_NONBLOCK  # opening a pipe must not wait for its other end
    if within is None:  # links on the way are followed
        parent = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            return _open(path, flags, parent)
        finally:
            os.close(parent)
    if _may_be_changed_by_others(within):
        flags |= os.O_NOFOLLOW
    try:
        return os.open(path.name, flags, 0o600, dir_fd=within)
    except OSError as error:
        if flags & os.O_NOFOLLOW and _is_link(path.name, within):
            raise StackError(
                f"{path} is a link in a folder that another user can change, so it is not "
                f"followed: {_REMEDY}"
            ) from None
        if error.errno == errno.ENXIO:
            raise StackError(f"{path} is not a file: {_REMEDY}") from None
        error.filename = str(path)
        raise


def _may_be_changed_by_others(folder: int) -> bool:
    """Group write access counts only for root: an ordinary user's group is often a private one."""
    status, user = os.fstat(folder), os.geteuid()
    others = 0o002 if user else 0o022
    return status.st_uid not in (0, user) or bool(status.st_mode & others)


def _is_link(name: str, folder: int) -> bool:
    try:
        return stat.S_ISLNK(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
    except OSError:
        return False
