"""Atomic writing, and checks of output paths."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from actshift import ActshiftError
from actshift.files import (
    atomic_folder,
    atomic_path,
    check_new_folder,
    check_writable,
    private_folder,
    write_atomically,
)
from tests.disks import small_disk

OLD, NEW = "the old content", "the new content"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def write_folder(path: Path) -> None:
    with atomic_folder(path) as folder:
        (folder / "model.safetensors").write_text(NEW)
        (folder / "config.json").write_text("{}")


@pytest.fixture(name="small_disk")
def disk_of_100_kb(tmp_path: Path) -> Iterator[Path]:
    """A disk of 100 kB."""
    with small_disk(tmp_path / "disk", "100k") as disk:
        yield disk


def killed_while(write: Callable[[], None]) -> None:
    """Run `write` in a child process, which must end by SIGKILL."""
    child = os.fork()
    if child == 0:
        write()
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def die_in_a_file(path: Path) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text("half")
        os.kill(os.getpid(), signal.SIGKILL)


def die_in_a_folder(path: Path) -> None:
    with atomic_folder(path) as folder:
        (folder / "config.json").write_text("{}")
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_failed_write_keeps_the_old_content(tmp_path: Path) -> None:
    target = tmp_path / "note.txt"
    write_atomically(target, OLD)
    with pytest.raises(UnicodeEncodeError):
        write_atomically(target, "second \ud800")  # a lone surrogate cannot be encoded
    with pytest.raises(KeyboardInterrupt), atomic_path(target) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert target.read_text() == OLD
    assert names(tmp_path) == ["note.txt"]


def test_a_failed_folder_leaves_nothing(tmp_path: Path) -> None:
    for path in (tmp_path / "new", tmp_path / "a" / "deep" / "one", tmp_path):
        with pytest.raises(KeyboardInterrupt), atomic_folder(path) as folder:
            (folder / "config.json").write_text("{}")
            raise KeyboardInterrupt
        assert names(tmp_path) == []


def test_a_killed_write_leaves_nothing_that_loads_or_blocks_the_next_one(tmp_path: Path) -> None:
    note, folder, empty = tmp_path / "note.txt", tmp_path / "folder", tmp_path / "empty"
    write_atomically(note, OLD)
    empty.mkdir()
    for write in (
        lambda: die_in_a_file(note),
        lambda: die_in_a_folder(folder),
        lambda: die_in_a_folder(folder / "deeper"),
        lambda: die_in_a_folder(empty),
    ):
        killed_while(write)
    assert note.read_text() == OLD
    assert not folder.exists()
    assert [path.name for path in empty.iterdir() if not path.name.startswith(".actshift-")] == []
    write_folder(empty)
    write_folder(folder)
    assert names(tmp_path) == ["empty", "folder", "note.txt"]
    assert names(empty) == names(folder) == ["config.json", "model.safetensors"]


def test_temporary_folders_of_living_processes_and_other_people_stay(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / ".actshift-planted.part").symlink_to(tmp_path / "elsewhere")
    with private_folder(tmp_path) as first:
        assert stat.S_IMODE(first.stat().st_mode) == 0o700  # nobody else can plant a link in it
        thread = threading.Thread(target=write_atomically, args=(tmp_path / "note.txt", NEW))
        thread.start()
        thread.join()
        killed_while(lambda: die_in_a_file(tmp_path / "note.txt"))
        write_folder(tmp_path / "folder")
        assert first.is_dir()
    assert names(tmp_path) == [".actshift-planted.part", "elsewhere", "folder", "note.txt"]


def test_a_folder_that_appears_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    for path in (tmp_path / "new", tmp_path / "empty"):
        if path.name == "empty":
            path.mkdir()
        with pytest.raises(ActshiftError, match="exists and is not empty"), atomic_folder(path) as folder:
            (folder / "config.json").write_text("{}")
            path.mkdir(exist_ok=True)
            (path / "config.json").write_text("mine")
        assert names(path) == ["config.json"] and (path / "config.json").read_text() == "mine"


def test_the_files_that_make_a_folder_loadable_come_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moved, move = [], os.replace
    monkeypatch.setattr(os, "replace", lambda source, target: (moved.append(Path(target).name), move(source, target)))
    with atomic_folder(tmp_path) as folder:
        for name in ("adapter_config.json", "config.json", "adapter_model.safetensors", "z.txt"):
            (folder / name).touch()
    assert moved == ["adapter_model.safetensors", "z.txt", "adapter_config.json", "config.json"]


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_modes_follow_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        with atomic_folder(tmp_path / "folder") as folder, atomic_path(tmp_path / "file") as file:
            for path in (folder / "config.json", file):
                path.unlink(missing_ok=True)
                os.close(os.open(path, os.O_CREAT, 0o600))  # as safetensors does
    finally:
        os.umask(before)
    modes = [stat.S_IMODE((tmp_path / path).stat().st_mode) for path in ("folder", "folder/config.json", "file")]
    assert modes == [0o777 & ~umask, 0o666 & ~umask, 0o666 & ~umask]


def test_links_are_replaced_and_never_followed(tmp_path: Path) -> None:
    precious = tmp_path / "precious.txt"
    for kind, plant in {
        "link": lambda path: path.symlink_to(precious),
        "dangling": lambda path: path.symlink_to(tmp_path / "nowhere"),
        "circular": lambda path: path.symlink_to(path),
        "hard": lambda path: path.hardlink_to(precious),
        "device": lambda path: path.symlink_to("/dev/null"),
    }.items():
        precious.write_text(OLD)
        target = tmp_path / kind
        plant(target)
        write_atomically(target, NEW)
        assert (target.is_symlink(), target.read_text(), precious.read_text()) == (False, NEW, OLD), kind
        assert not (tmp_path / "nowhere").exists()


def test_a_link_to_an_empty_folder_is_followed_and_one_to_nothing_refused(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to("disk")
    (tmp_path / "dangling").symlink_to("nowhere")
    write_folder(tmp_path / "link")
    assert (tmp_path / "link").is_symlink() and names(tmp_path / "disk") == ["config.json", "model.safetensors"]
    with pytest.raises(ActshiftError, match="exists and is no folder"):
        write_folder(tmp_path / "dangling")


@pytest.mark.parametrize("name", ["x" * 255, "ü" * 127, "two words\n.json", "-", ".hidden", "日本語 🦊.json"])
def test_names_of_any_length_and_alphabet_can_be_written(tmp_path: Path, name: str) -> None:
    write_atomically(tmp_path / name, NEW)
    assert (tmp_path / name).read_text() == NEW
    (tmp_path / name).unlink()
    write_folder(tmp_path / name)
    assert names(tmp_path / name) == ["config.json", "model.safetensors"]


def test_pipes_and_devices_receive_the_content(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    received: list[str] = []
    reader = threading.Thread(target=lambda: received.append(fifo.read_text()))
    reader.start()
    for path in (fifo, Path("/dev/null"), Path("/dev/stdout"), Path("/proc/self/fd/2")):
        check_writable(path)
        write_atomically(path, NEW)
    reader.join()
    assert (received, capfd.readouterr()) == ([NEW], (NEW, NEW))
    assert stat.S_ISFIFO(fifo.stat().st_mode) and stat.S_ISCHR(os.stat("/dev/null").st_mode)
    assert os.path.islink("/dev/stdout")


def test_a_redirected_stdout_continues_behind_what_was_printed(tmp_path: Path) -> None:
    code = "import actshift.files as f; print('first'); f.write_atomically('/dev/stdout', 'second '); print('third')"
    with (tmp_path / "log.txt").open("w") as log:
        subprocess.run([sys.executable, "-c", code], stdout=log, check=True)
    assert (tmp_path / "log.txt").read_text() == "first\nsecond third\n"


def test_a_full_disk_is_named_by_the_target_and_leaves_no_file(small_disk: Path) -> None:
    write_atomically(small_disk / "note.txt", OLD)
    for target in (small_disk / "note.txt", small_disk / "folder", small_disk / "a" / "folder"):
        with pytest.raises(OSError, match=str(target)) as error:
            if target.suffix:
                write_atomically(target, "x" * 200_000)
            else:
                with atomic_folder(target) as folder:
                    (folder / "weights").write_bytes(b"x" * 200_000)
        assert error.value.errno == errno.ENOSPC and ".actshift" not in str(error.value)
    assert names(small_disk) == ["note.txt"] and (small_disk / "note.txt").read_text() == OLD


def test_a_folder_that_is_a_disk_of_its_own_is_filled(small_disk: Path) -> None:
    write_folder(small_disk)
    assert names(small_disk) == ["config.json", "model.safetensors"]


def test_a_path_that_cannot_be_written_is_rejected_beforehand(tmp_path: Path) -> None:
    check_writable(tmp_path / "new.txt")
    with pytest.raises(ActshiftError, match="is a folder"):
        check_writable(tmp_path)
    with pytest.raises(ActshiftError, match=r"There is no folder .*missing to write new\.txt"):
        check_writable(tmp_path / "missing" / "new.txt")


def test_a_folder_with_content_is_rejected_as_a_new_folder(tmp_path: Path) -> None:
    check_new_folder(tmp_path / "missing")
    check_new_folder(tmp_path)
    (tmp_path / "note.txt").touch()
    for path, problem in (
        (tmp_path, "exists and is not empty. Give a new or empty folder"),
        (tmp_path / "note.txt", "exists and is no folder. Give a new or empty folder"),
        (tmp_path / "note.txt" / "below", "cannot be created, because .*note.txt is no folder"),
        (Path("/dev/null"), "exists and is no folder"),
    ):
        with pytest.raises(ActshiftError, match=problem):
            check_new_folder(path)


def test_a_folder_without_permission_is_rejected_beforehand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)  # root may write everywhere
    for check, path in ((check_writable, "a.json"), (check_new_folder, "new"), (check_new_folder, "new/deep")):
        with pytest.raises(ActshiftError, match=r"is not writable\. Choose another one for"):
            check(tmp_path / path)
