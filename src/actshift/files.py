"""Write files and folders atomically, and check output paths."""

import errno
import os
import shutil
import sys
import tempfile
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from actshift.errors import ActshiftError

LOADABLE = ("adapter_config.json", "config.json")  # a folder with one of these can be loaded, so they are moved last
PRIVATE = ".actshift-"  # prefix of the names of temporary folders
LOCK = f"{PRIVATE}lock"


@contextmanager
def private_folder(parent: str | Path) -> Generator[Path, None, None]:
    """Yield a new hidden folder in `parent`, on the same disk, and remove it at the end.

    Only its owner can enter it, so other users cannot plant a link in it. It stays locked while this process lives.
    Folders of killed processes are removed first.
    """
    remove_abandoned(parent)
    private, lock = _new_private(parent)
    try:
        yield private
    finally:
        shutil.rmtree(private, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def remove_abandoned(parent: str | Path) -> None:
    """Remove the private folders in `parent` whose processes were killed."""
    for private in Path(parent).glob(f"{PRIVATE}*"):
        if (lock := _lock(private)) is not None:
            shutil.rmtree(private, ignore_errors=True)
            os.close(lock)


@contextmanager
def atomic_path(path: str | Path) -> Generator[Path, None, None]:
    """Yield the path of a temporary file, and move it to `path` at the end, or remove it on an error.

    The file has the mode of a new file (the umask decides). A link at `path` is replaced, not followed. A device or a
    pipe, such as /dev/stdout, receives the content.

    Raises:
        OSError: the folder is not writable, or the disk is full. `path` is then unchanged.

    >>> target = Path(tempfile.mkdtemp(), "note.txt")
    >>> with atomic_path(target) as temporary:
    ...     _ = temporary.write_text("done")
    >>> [file.name for file in target.parent.iterdir()]
    ['note.txt']
    """
    path = Path(path)
    stream = is_stream(path)
    with _errors_name(path), private_folder(tempfile.gettempdir() if stream else path.parent) as private:
        temporary = private / path.name
        temporary.touch()
        mode = temporary.stat().st_mode
        yield temporary
        if stream:
            _send(temporary, path)
            return
        sync_file(temporary)
        temporary.chmod(mode)  # safetensors makes its files private
        temporary.replace(path)
    sync_folder(path.parent)


def write_atomically(path: str | Path, text: str) -> None:
    """Write UTF-8 text atomically: `path` then has the old content or the new content, never a part of it.

    Raises:
        OSError: the folder is not writable, or the disk is full. No temporary file is left behind.

    >>> target = Path(tempfile.mkdtemp(), "note.txt")
    >>> write_atomically(target, "done")
    >>> target.read_text()
    'done'
    """
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextmanager
def atomic_folder(path: str | Path) -> Generator[Path, None, None]:
    """Yield a temporary folder, and move it to `path`, a new or empty folder, at the end; remove it on an error.

    A new folder appears in one step. Into an empty one, which may be another disk, the files are moved one by
    one, and the config is moved last.

    Raises:
        ActshiftError: `path` is a file, or a folder that is not empty or not writable.
        OSError: the disk is full. `path` is then unchanged.

    >>> target = Path(tempfile.mkdtemp(), "adapter")
    >>> with atomic_folder(target) as temporary:
    ...     _ = (temporary / "adapter_config.json").write_text("{}")
    >>> [file.name for file in target.iterdir()]
    ['adapter_config.json']
    """
    check_new_folder(path)
    path = Path(os.path.realpath(path))  # a link to an empty folder is followed
    existing = existing_folder(path)
    with _errors_name(path), private_folder(existing) as private:
        new = private / (path.relative_to(existing) if path != existing else "content")
        new.mkdir(parents=True)
        yield new
        check_new_folder(path)  # another process may have written to it
        if path == existing:
            move_into(path, new)
        else:
            _settle(new)
            top = private / path.relative_to(existing).parts[0]
            top.rename(existing / top.name)
    sync_folder(existing)


def move_into(target: Path, source: Path) -> None:
    """Move the files of `source` into the folder `target` on the same disk, and the config last."""
    _settle(source)
    for file in sorted(source.iterdir(), key=lambda file: (file.name in LOADABLE, file.name)):
        os.replace(file, target / file.name)
    sync_folder(target)


@contextmanager
def locked(path: str | Path, busy: str) -> Generator[None, None, None]:
    """Hold an exclusive lock on the file `path` inside a `with` block; the system releases it if the process dies.

    It is an flock, which Linux also keeps on NFS. File systems without it get a lock file with the holder's process id.

    Raises:
        ActshiftError: another process has the lock; `busy` is the message.
    """
    from filelock import FileLock, Timeout

    try:
        with FileLock(path, timeout=0):
            yield
    except Timeout:
        raise ActshiftError(busy) from None


@contextmanager
def locked_folder(path: str | Path, busy: str) -> Generator[None, None, None]:
    """Lock a folder as `locked` does, and create it first if it is missing. A new folder that stays empty is removed.

    Raises:
        ActshiftError: another process has the lock; `busy` is the message.
    """
    path = Path(path)
    new = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    with locked(path / LOCK, busy):
        try:
            yield
        finally:
            (path / LOCK).unlink(missing_ok=True)
            with suppress(OSError):  # a folder with files stays
                for folder in new:
                    folder.rmdir()


def check_writable(path: str | Path) -> None:
    """Raise ActshiftError unless a file can be written at `path`. Call it before a long computation."""
    path = Path(path)
    if path.is_dir():
        raise ActshiftError(f"{path} is a folder. Give the name of a file to write.")
    if not path.parent.is_dir():
        raise ActshiftError(f"There is no folder {path.parent} to write {path.name} to. Create it first.")
    if not os.access(path if is_stream(path) else path.parent, os.W_OK):
        raise ActshiftError(f"The folder {path.parent} is not writable. Choose another one for {path.name}.")


def check_new_folder(path: str | Path) -> None:
    """Raise ActshiftError unless `path` is an empty folder or can be created. Private folders do not count."""
    path = Path(path)
    if path.is_dir():
        if any(not file.name.startswith(PRIVATE) for file in path.iterdir()):
            raise ActshiftError(f"{path} exists and is not empty. Give a new or empty folder.")
    elif os.path.lexists(path):
        raise ActshiftError(f"{path} exists and is no folder. Give a new or empty folder.")
    if not (existing := existing_folder(path)).is_dir():
        raise ActshiftError(f"{path} cannot be created, because {existing} is no folder. Give another one.")
    if not os.access(existing, os.W_OK):
        raise ActshiftError(f"The folder {existing} is not writable. Choose another one for {path.name}.")


def existing_folder(path: Path) -> Path:
    """Return the nearest folder above `path` that exists, or `path` itself."""
    path = path.absolute()
    return next(folder for folder in (path, *path.parents) if folder.exists())


def is_stream(path: Path) -> bool:
    """Return True for a pipe, a device, and every name of an open file in /dev and /proc, such as /dev/stdout.

    A link to a pipe or device from elsewhere does not count, because someone may have planted it.
    """
    folder = os.path.realpath(path.parent)
    if folder == "/dev" or folder.startswith("/proc/"):
        return os.path.lexists(path)
    return path.exists() and not (path.is_symlink() or path.is_file() or path.is_dir())


def _new_private(parent: str | Path) -> tuple[Path, int | None]:
    """Create a private folder and lock it."""
    for _ in range(3):
        private = Path(tempfile.mkdtemp(prefix=PRIVATE, dir=parent))
        if (lock := _lock(private)) is not None:
            if private.exists():
                return private, lock
            os.close(lock)  # another process removed it as abandoned before it was locked
        shutil.rmtree(private, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=PRIVATE, dir=parent)), None  # the file system has no locks


def _lock(folder: str | Path) -> int | None:
    """Lock a folder of this user until the descriptor is closed or the process ends; None if that is impossible."""
    if sys.platform == "win32":
        return None
    import fcntl

    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            if os.fstat(descriptor).st_uid == os.geteuid():
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return descriptor
        except OSError:  # another process has the lock, or the file system has none
            pass
        os.close(descriptor)
    return None


def _settle(folder: Path) -> None:
    """Give the files of a new folder the mode that the umask allows, and write them to the disk."""
    mode = folder.stat().st_mode & 0o666
    for directory, _, files in os.walk(folder):
        for name in files:
            sync_file(Path(directory, name))
            os.chmod(Path(directory, name), mode)
        sync_folder(Path(directory))


def sync_file(file: Path) -> None:
    """Write a file to the disk; raises OSError if the disk is full."""
    with file.open("r+b") as opened:
        os.fsync(opened.fileno())  # some file systems report a full disk only here


def sync_folder(folder: Path) -> None:
    """Make the names in a folder survive a power failure, if the system can."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def _errors_name(path: Path) -> Generator[None, None, None]:
    """Name `path` in errors of the system about a temporary file or a full disk."""
    try:
        yield
    except OSError as error:
        if PRIVATE in str(error.filename) or error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            error.filename, error.filename2 = str(path), None
        raise


def _send(source: Path, stream: Path) -> None:
    """Copy a file to a pipe or device. If it is stdout, the content follows what was printed before."""
    target: Path | int = stream
    for output, descriptor in ((sys.stdout, 1), (sys.stderr, 2)):
        with suppress(OSError):
            if os.path.samestat(stream.stat(), os.fstat(descriptor)):
                output.flush()
                target = descriptor
    with source.open("rb") as content, open(target, "wb", closefd=target is stream) as opened:
        shutil.copyfileobj(content, opened)
