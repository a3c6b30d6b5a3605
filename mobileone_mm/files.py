"""Write files so that a reader sees the old file or the whole new one, never a part; hash them."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import torch
from mmengine.fileio import LocalBackend, register_backend

from .errors import InputError

#: what the user can do about an error of the file system
REASONS = {
    errno.ENOSPC: 'the disk is full; free some space or choose another folder',
    errno.EDQUOT: 'the disk quota is used up; free some space or choose another folder',
    errno.EACCES: 'no permission; choose a file or folder with the permission',
    errno.EPERM: 'no permission; choose a file or folder with the permission',
    errno.EROFS: 'the file system is read-only; choose another folder',
    errno.ENOENT: 'no such file or folder',
    errno.EISDIR: 'it is a folder; give a file',
    errno.ENOTDIR: 'a part of the path is a file, not a folder',
    errno.EEXIST: 'a file of that name exists; choose another name',
    errno.ELOOP: 'it is a symbolic link that leads to itself',
    errno.ENAMETOOLONG: 'the name is too long; choose a shorter one',
}
Path_ = str | os.PathLike[str]
Write = Callable[[BinaryIO], Any]


def reason_of(error: OSError) -> str:
    """Return why a file cannot be read or written, and what to do about it."""
    return REASONS.get(error.errno or 0, error.strerror or str(error))


def atomic_write(path: Path_, write: Write) -> None:
    """Write one file: a temporary name in the same folder, fsync, rename.

    A missing folder is created. A symbolic link is followed, so that the link stays.

    Args:
        path: The file to write.
        write: Called with the file, open for writing bytes.

    Raises:
        InputError: The file cannot be written (no permission, a full disk, a folder of that name).
            An earlier file of that name is unharmed.
    """
    atomic_write_all({path: write})


def atomic_text(path: Path_, text: str) -> None:
    """Write a string as UTF-8 in one step, as :func:`atomic_write` does."""
    atomic_write(path, lambda file: file.write(text.encode()))


def torch_bytes(obj: Any) -> bytes:
    """Return what ``torch.save`` writes for an object."""
    # Into memory first: when its file fails, torch.save hides the reason (a full disk) behind an
    # internal error of its zip writer.
    buffer = io.BytesIO()
    torch.save(obj, buffer)
    return buffer.getvalue()


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, without reading all of it into memory."""
    digest = hashlib.sha256()
    with path.open('rb') as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def atomic_write_all(writers: Mapping[Path_, Write]) -> None:
    """Write several files that belong together: all of them, or none.

    Every file is complete under a temporary name before the first is renamed. When a renaming
    fails, those before it are undone, and the earlier files of these names are restored.

    Raises:
        InputError: One of the files cannot be written.
    """
    staged: list[tuple[Path, Path]] = []
    made: list[Path] = []
    path: Path_ = ''
    try:
        for path, write in writers.items():
            target = _target(path)
            made += _missing_folders(target.parent)
            target.parent.mkdir(parents=True, exist_ok=True)
            staged.append((_stage(target, write), target))
        _commit(staged)
        made = []
    except OSError as error:
        # An error of the commit is about `error.filename2`, the target of a renaming.
        name = error.filename2 or path
        raise InputError(f"cannot write '{os.fspath(name)}': {reason_of(error)}") from error
    finally:
        for temporary, _ in staged:
            _remove(temporary)
        for folder in reversed(made):
            with suppress(OSError):  # somebody else may have put a file into it
                folder.rmdir()


@contextmanager
def atomic_folder(path: Path_, argument: str) -> Iterator[Path]:
    """Yield a temporary folder that is renamed to the given path at the end, or removed after an error.

    Args:
        path: New or empty folder.
        argument: Name of the argument that gave the path, for messages.

    Raises:
        InputError: The folder is not empty, is a file, or cannot be written.
    """
    target = Path(path).expanduser().absolute()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        kind = 'not empty' if target.is_dir() else 'a file'
        raise InputError(f"{argument}: '{path}' is {kind}; expected a new or empty folder")
    work = target.with_name(f'.{target.name}.{secrets.token_hex(8)}.tmp')
    made = _missing_folders(target.parent)
    try:
        work.mkdir(parents=True)
        yield work
        for file in work.rglob('*'):
            if file.is_file():
                with file.open('rb') as stream:
                    os.fsync(stream.fileno())
        os.replace(work, target)
        made = []
    except OSError as error:
        raise InputError(f"{argument}: cannot write '{target}': {reason_of(error)}") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
        for folder in reversed(made):
            with suppress(OSError):  # another program may have put a file into it
                folder.rmdir()


def _target(path: Path_) -> Path:
    """The file behind a path and its links; raise for what must not be replaced."""
    name = os.fspath(path)
    if '\0' in name:
        raise OSError(errno.EINVAL, 'a null character in the name')
    target = Path(os.path.realpath(os.path.expanduser(name)))
    try:
        status = target.stat()
    except FileNotFoundError:
        return target
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, 'there is a folder of that name')
    # A renaming would put a plain file into the place of /dev/null, or of the end of a pipe.
    if not stat.S_ISREG(status.st_mode):
        raise InputError(f"cannot write '{name}': it is no regular file; choose another name")
    # Nor does a renaming ask for the permission to write to the file itself.
    if not status.st_mode & 0o222:
        raise InputError(f"cannot write '{name}': it is write-protected; choose another name")
    return target


def _missing_folders(folder: Path) -> list[Path]:
    """The folder and its parents that do not exist, the outermost first."""
    return [parent for parent in (folder, *folder.parents) if not parent.exists()][::-1]


def _stage(target: Path, write: Write) -> Path:
    # Not mkstemp, whose files only their owner can read. The system applies the umask to this one;
    # Python can read the umask only by changing it, for all threads of the process.
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | getattr(os, 'O_BINARY', 0)
    # A part of the name: the longest name of a file system would be too long with more behind it.
    temporary = target.with_name(f'.{target.name[:40]}.{secrets.token_hex(8)}.tmp')
    handle = os.open(temporary, flags, 0o666)
    try:
        with os.fdopen(handle, 'wb') as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileNotFoundError):
            os.chmod(temporary, target.stat().st_mode & 0o777)
    except BaseException:
        _remove(temporary)
        raise
    return temporary


def _commit(staged: list[tuple[Path, Path]]) -> None:
    done: list[Path] = []
    backups: dict[Path, Path] = {}
    try:
        for temporary, target in staged:
            if len(staged) > 1 and target.exists():
                backups[target] = Path(f'{temporary}.bak')
                _second_name(target, backups[target])
            os.replace(temporary, target)
            done.append(target)
    except BaseException:
        for target in done:
            if target in backups:
                os.replace(backups.pop(target), target)
            else:
                _remove(target)
        raise
    finally:
        for backup in backups.values():
            _remove(backup)
    for folder in {target.parent for target in done}:
        _sync_folder(folder)


def _second_name(path: Path, name: Path) -> None:
    try:
        os.link(path, name)
    except OSError:  # a file system without hard links
        name.write_bytes(path.read_bytes())


def _sync_folder(folder: Path) -> None:
    # Makes the new name last through a power cut; some file systems and Windows cannot do it.
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _remove(path: Path) -> None:
    with suppress(FileNotFoundError):
        path.unlink()


class AtomicLocalBackend(LocalBackend):
    """mmengine's local files, written under a temporary name first.

    mmengine opens the final name and writes: a full disk or a killed process leaves half a checkpoint
    in place of the last good one, or one that ``--resume`` then picks.
    """

    def put(self, obj: bytes, filepath: Path_) -> None:
        """Write bytes to a file in one step."""
        atomic_write(filepath, lambda file: file.write(obj))

    def put_text(self, obj: str, filepath: Path_, encoding: str = 'utf-8') -> None:
        """Write a string to a file in one step."""
        self.put(obj.encode(encoding), filepath)


def use_atomic_files() -> None:
    """Make mmengine write checkpoints and results in this process in one step each."""
    register_backend('local', AtomicLocalBackend, force=True, prefixes='')
