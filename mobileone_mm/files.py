"""Write files so that a reader sees the old file or the whole new one, never a part.

Also names of files, and their hashes.
"""

import errno
import hashlib
import io
import os
import re
import secrets
import shutil
import stat
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path, PurePath
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
# Characters that separate folders, or that some file systems do not allow in a name.
_NOT_IN_NAMES = re.compile(r'[\x00-\x1f\x7f/\\<>:"|?*]')
_LONGEST_NAME = 200  # bytes, of the 255 that file systems allow; a suffix needs some
Path_ = str | os.PathLike[str]
#: the bytes of a file, or a function that is called with the file, open for writing bytes
Content = bytes | Callable[[BinaryIO], Any]


def reason_of(error: OSError) -> str:
    """Return why a file cannot be read or written, and what to do about it."""
    return REASONS.get(error.errno or 0, error.strerror or str(error))


def disk_is_full(error: BaseException | None) -> bool:
    """Return whether a full disk or a used-up quota is the cause of an error."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        error = error.__cause__
    return False


def file_name(text: str, taken: set[str]) -> str:
    """Make a name for one file or folder of any string, and add it to the names that are ``taken``.

    The name is one part of a path of at most 200 bytes. Underscores replace separators, characters that
    some file systems do not allow, a dot at the begin (readers of datasets skip hidden files), and a
    dot or space at the end. A name that is taken, also in other case or in another Unicode form, gets a
    number.
    """
    # The strings of JSON can have surrogates, which UTF-8 cannot encode.
    name = _NOT_IN_NAMES.sub('_', text.encode(errors='replace').decode())
    name = name.encode()[:_LONGEST_NAME].decode(errors='ignore')
    first = name = re.sub(r'^\.|[. ]$', '_', name) or '_'
    number = 1
    while (key := unicodedata.normalize('NFC', name).casefold()) in taken:
        number += 1
        name = f'{first}_{number}'
    taken.add(key)
    return name


def path_below(folder: Path, name: str, argument: str) -> Path:
    """Return the path of a file in a folder by a name that may have folders itself.

    A name that would lead out of the folder is an InputError that begins with ``argument``.
    """
    relative = PurePath(name)
    if relative.anchor or not relative.parts or '..' in relative.parts or '\0' in name:
        raise InputError(f'{argument}: got {name!r}; expected the name of a file inside its folder')
    return folder / relative


def atomic_write(path: Path_, content: Content) -> None:
    """Write one file: a temporary name in the same folder, fsync, rename.

    A missing folder is created. A symbolic link is followed, so that the link stays. If the file
    cannot be written, an InputError says why, and an earlier file of that name is unharmed.
    """
    atomic_write_all({path: content})


def write_all(file: Any, content: bytes) -> None:
    """Write all bytes to a file without a buffer; a full disk takes a part before it is an error."""
    rest = memoryview(content)
    while rest:
        rest = rest[file.write(rest) :]


def atomic_text(path: Path_, text: str) -> None:
    """Write a string as UTF-8 in one step, as :func:`atomic_write` does."""
    atomic_write(path, text.encode())


def torch_bytes(obj: Any) -> bytes:
    """Return what ``torch.save`` writes for an object.

    When its file fails, torch.save hides the reason behind an internal error of its zip writer.
    """
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


def atomic_write_all(contents: Mapping[Path_, Content]) -> None:
    """Write several files that belong together: all of them, or none, as :func:`atomic_write` does.

    Every file is complete under a temporary name before the first is renamed. When a renaming
    fails, those before it are undone, and the earlier files of these names are restored.
    """
    staged: dict[Path, Path] = {}
    path: Path_ = ''
    with ExitStack() as undo:
        try:
            for path, content in contents.items():
                target = _target(path)
                make_folder(target.parent, undo)
                staged[target] = _stage(target, content, undo)
            backups = [_rename(staged[target], target, len(staged) > 1, undo) for target in staged]
            undo.pop_all()
        except OSError as error:
            # An error of a renaming is about `error.filename2`, its target.
            name = error.filename2 or path
            raise InputError(f"cannot write '{os.fspath(name)}': {reason_of(error)}") from error
    for backup in filter(None, backups):
        backup.unlink(missing_ok=True)
    for folder in {target.parent for target in staged}:
        # The new names last through a power cut; some file systems and Windows cannot do it.
        with suppress(OSError):
            handle = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)


@contextmanager
def atomic_folder(path: Path_, argument: str) -> Iterator[Path]:
    """Yield a temporary folder that is renamed to the given path at the end, or removed after an error.

    An InputError begins with ``argument``, the name of the argument that gave the path.
    """
    target = Path(path).expanduser().absolute()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        kind = 'not empty' if target.is_dir() else 'a file'
        raise InputError(f"{argument}: '{path}' is {kind}; expected a new or empty folder")
    work = target.with_name(f'.{target.name}.{secrets.token_hex(8)}.tmp')
    with ExitStack() as undo:
        try:
            make_folder(target.parent, undo)
            undo.callback(shutil.rmtree, work, ignore_errors=True)
            work.mkdir()
            yield work
            for file in work.rglob('*'):
                if file.is_file():
                    with file.open('rb') as stream:
                        os.fsync(stream.fileno())
            os.replace(work, target)
            undo.pop_all()
        except OSError as error:
            raise InputError(f"{argument}: cannot write '{target}': {reason_of(error)}") from error


def _target(path: Path_) -> Path:
    """Return the file behind a path and its links; raise for what must not be replaced."""
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


def make_folder(folder: Path, undo: ExitStack) -> None:
    """Make a folder and its parents; undoing removes the new ones, if nobody else uses them."""

    def remove(new: Path) -> None:
        with suppress(OSError):
            new.rmdir()

    for parent in reversed((folder, *folder.parents)):
        if not parent.exists():
            undo.callback(remove, parent)
    folder.mkdir(parents=True, exist_ok=True)


def _stage(target: Path, content: Content, undo: ExitStack) -> Path:
    """Write the file of a target under a temporary name."""
    # Not mkstemp, whose files only their owner can read. The system applies the umask to this one;
    # Python can read the umask only by changing it, for all threads of the process.
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | getattr(os, 'O_BINARY', 0)
    # A part of the name: the longest name of a file system would be too long with more behind it.
    temporary = target.with_name(f'.{target.name[:40]}.{secrets.token_hex(8)}.tmp')
    undo.callback(temporary.unlink, missing_ok=True)
    with os.fdopen(os.open(temporary, flags, 0o666), 'wb') as file:
        file.write(content) if isinstance(content, bytes) else content(file)
        file.flush()
        os.fsync(file.fileno())
    with suppress(FileNotFoundError):
        os.chmod(temporary, target.stat().st_mode & 0o777)
    return temporary


def _rename(temporary: Path, target: Path, keep: bool, undo: ExitStack) -> Path | None:
    """Rename a file to its target; return the second name of the earlier file, if it is kept."""
    if not (keep and target.exists()):
        os.replace(temporary, target)
        if keep:
            undo.callback(target.unlink, missing_ok=True)
        return None
    backup = Path(f'{temporary}.bak')
    undo.callback(backup.unlink, missing_ok=True)
    try:
        os.link(target, backup)
    except OSError:  # a file system without hard links
        backup.write_bytes(target.read_bytes())
    os.replace(temporary, target)
    undo.callback(os.replace, backup, target)
    return backup


class AtomicLocalBackend(LocalBackend):
    """mmengine's local files, written under a temporary name first.

    mmengine opens the final name and writes: a full disk or a killed process leaves half a checkpoint
    in place of the last good one, or one that ``--resume`` then picks.
    """

    def put(self, obj: bytes, filepath: Path_) -> None:
        atomic_write(filepath, obj)

    def put_text(self, obj: str, filepath: Path_, encoding: str = 'utf-8') -> None:
        self.put(obj.encode(encoding), filepath)


def use_atomic_files() -> None:
    """Make mmengine write checkpoints and results in this process in one step each."""
    register_backend('local', AtomicLocalBackend, force=True, prefixes='')
