"""Files are complete or absent, their checksums are right, and errors of the disk come out."""

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from retinanet_ext import files
from retinanet_ext.files import (
    UNFINISHED,
    dump_json,
    find_damage,
    remove_checked,
    remove_unfinished,
    write_checked,
    write_text,
    written_whole,
)


class FullDisk:
    """A file on a disk that takes ``room`` bytes."""

    def __init__(self, file, room):
        self.file, self.room = file, room

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.file.close()

    def write(self, data):
        self.room -= memoryview(data).nbytes
        if self.room < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return self.file.write(data)

    def __getattr__(self, name):
        return getattr(self.file, name)


def fill_disk(patch, room, only=""):
    """Give each file with ``only`` in its name that is opened from now on room for some bytes."""

    def opened(path, *args):
        return FullDisk(open(path, *args), room if only in path else 10**9)

    patch.setattr(files, "open", opened, raising=False)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def save(path, value):
    write_checked(str(path), lambda file: torch.save({"x": torch.full((1000,), value)}, file))


def test_a_file_is_as_torch_writes_it_and_has_its_checksum(tmp_path):
    save(tmp_path / "w.pth", 1.0)
    assert names(tmp_path) == ["w.pth", "w.pth.sha256"]
    assert torch.load(tmp_path / "w.pth", weights_only=True)["x"].unique().tolist() == [1]
    assert not find_damage(str(tmp_path / "w.pth"))


@pytest.mark.skipif(not shutil.which("sha256sum"), reason="sha256sum is not installed")
def test_sha256sum_agrees(tmp_path):
    save(tmp_path / "w.pth", 1.0)
    command = ["sha256sum", "-c", "w.pth.sha256"]
    assert subprocess.run(command, cwd=tmp_path, capture_output=True).stdout == b"w.pth: OK\n"


@pytest.mark.parametrize("room", [0, 300, 4500])
def test_a_full_disk_is_an_os_error_and_leaves_the_old_file(tmp_path, monkeypatch, room):
    path = tmp_path / "w.pth"
    save(path, 1.0)
    before = {x.name: x.read_bytes() for x in tmp_path.iterdir()}
    with monkeypatch.context() as patch:
        fill_disk(patch, room)
        with pytest.raises(OSError) as caught:
            save(path, 2.0)
    assert caught.value.errno == errno.ENOSPC
    assert {x.name: x.read_bytes() for x in tmp_path.iterdir()} == before
    save(path, 2.0)  # as soon as there is room


def test_no_room_for_the_checksum_is_no_room(tmp_path, monkeypatch):
    save(tmp_path / "w.pth", 1.0)
    before = (tmp_path / "w.pth").read_bytes()
    fill_disk(monkeypatch, 10, only=".sha256")
    with pytest.raises(OSError, match="No space"):
        save(tmp_path / "w.pth", 2.0)
    assert names(tmp_path) == ["w.pth", "w.pth.sha256"]
    assert (tmp_path / "w.pth").read_bytes() == before


@pytest.mark.parametrize("step", range(4))
def test_death_at_any_step_leaves_a_file_that_counts_as_good(tmp_path, monkeypatch, step):
    """Steps that change what the folder shows: removing the checksum, two renames, and after."""

    class Death(BaseException):
        pass

    save(tmp_path / "w.pth", 1.0)
    steps = []

    def dying(function):
        def run(*args):
            if len(steps) == step:
                raise Death
            steps.append(args)
            return function(*args)

        return run

    with monkeypatch.context() as patch:
        patch.setattr(files, "_remove_if_there", lambda *paths: None)  # the dead clean nothing
        patch.setattr(files.os, "remove", dying(os.remove))
        patch.setattr(files.os, "replace", dying(os.replace))
        if step < 3:
            with pytest.raises(Death):
                save(tmp_path / "w.pth", 2.0)
        else:
            save(tmp_path / "w.pth", 2.0)
    assert not find_damage(str(tmp_path / "w.pth"))
    value = torch.load(tmp_path / "w.pth", weights_only=True)["x"].unique().tolist()
    assert value == [1.0 if step < 2 else 2.0]
    remove_unfinished(str(tmp_path))
    assert not [name for name in names(tmp_path) if "unfinished" in name]


def test_content_is_on_the_disk_before_it_gets_its_name(tmp_path, monkeypatch):
    calls = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (calls.append("fsync"), fsync(fd)))
    monkeypatch.setattr(os, "replace", lambda *a: (calls.append("replace"), replace(*a)))
    save(tmp_path / "w.pth", 1.0)
    # File, checksum; their names; the folder that holds the names.
    assert calls == ["fsync", "fsync", "replace", "replace", "fsync"]
    calls.clear()
    write_text(str(tmp_path / "last"), "w.pth")
    assert calls == ["fsync", "replace", "fsync"] and (tmp_path / "last").read_text() == "w.pth"


def flip_byte(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def truncate(path):
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize("harm", [flip_byte, truncate])
def test_damage_is_found_where_there_is_a_checksum(tmp_path, harm):
    save(tmp_path / "w.pth", 1.0)
    harm(tmp_path / "w.pth")
    damage = find_damage(str(tmp_path / "w.pth"))
    assert damage == "differs from its checksum in w.pth.sha256"
    (tmp_path / "w.pth.sha256").unlink()
    assert not find_damage(str(tmp_path / "w.pth"))


def test_a_text_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "last"
    write_text(str(path), "old")
    fill_disk(monkeypatch, 2)
    with pytest.raises(OSError, match="No space"):
        write_text(str(path), "newer")
    assert names(tmp_path) == ["last"] and path.read_text() == "old"


def test_a_file_goes_with_its_checksum_and_both_may_be_gone(tmp_path):
    save(tmp_path / "w.pth", 1.0)
    save(tmp_path / "v.pth", 1.0)
    for _ in range(2):
        remove_checked(str(tmp_path / "w.pth"))
    assert names(tmp_path) == ["v.pth", "v.pth.sha256"]


def test_a_file_gets_its_name_when_it_is_whole(tmp_path):
    path = tmp_path / "w.bin"
    path.write_text("old")
    with written_whole(str(path)) as new:
        with open(new, "w") as file:
            file.write("new")
        assert os.path.dirname(new) == str(tmp_path) and new.endswith(UNFINISHED)
        assert path.read_text() == "old"
    assert names(tmp_path) == ["w.bin"] and path.read_text() == "new"


def test_an_error_while_a_file_is_written_leaves_the_old_one(tmp_path):
    path = tmp_path / "w.bin"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), written_whole(str(path)) as new:
        with open(new, "w") as file:
            file.write("half")
        raise KeyboardInterrupt
    assert names(tmp_path) == ["w.bin"] and path.read_text() == "old"


def test_a_link_stays_one_and_its_file_is_written(tmp_path):
    (tmp_path / "real").mkdir()
    target, link = tmp_path / "real" / "numbers.json", tmp_path / "link.json"
    target.write_text("old")
    link.symlink_to(target)
    write_text(str(link), "new")
    assert link.is_symlink() and target.read_text() == "new"
    assert sorted(x.name for x in tmp_path.iterdir()) == ["link.json", "real"]
    assert [x.name for x in target.parent.iterdir()] == ["numbers.json"]


def test_a_pipe_is_written_to_and_stays_one(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write_text(str(pipe), "numbers")
    assert os.read(reader, 99) == b"numbers"
    os.close(reader)
    assert pipe.is_fifo()


@pytest.mark.parametrize("into", ["a pipe", "a file"])
def test_the_standard_output_is_written_to(tmp_path, into):
    code = "from retinanet_ext.files import write_text; write_text('/dev/stdout', 'numbers')"
    before = os.lstat("/dev/stdout")
    if into == "a pipe":
        out = subprocess.run(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, check=True
        ).stdout
    else:
        path = tmp_path / "out"
        with path.open("wb") as file:
            subprocess.run([sys.executable, "-c", code], stdout=file, check=True)
        out = path.read_bytes()
    assert out == b"numbers"
    assert os.lstat("/dev/stdout").st_ino == before.st_ino


def test_an_error_names_the_file_that_was_asked_for(tmp_path):
    path = str(tmp_path / "none" / "a.json")
    with pytest.raises(OSError) as caught:
        write_text(path, "x")
    assert caught.value.filename == path and UNFINISHED not in str(caught.value)


def test_two_writers_of_a_file_do_not_meet(tmp_path):
    path = str(tmp_path / "w.bin")
    with written_whole(path) as first, written_whole(path) as second:
        assert first != second
        for new in (first, second):
            with open(new, "w") as file:
                file.write(new)
    assert names(tmp_path) == ["w.bin"] and (tmp_path / "w.bin").read_text() == first


def test_json_has_null_for_what_is_not_finite_and_text_for_what_it_does_not_know():
    content = {"a": float("nan"), "b": (1, float("-inf"), 2.5), 3: Path("x"), "ok": [True, None]}
    text = dump_json(content, sort_keys=False)
    assert json.loads(text) == {"a": None, "b": [1, None, 2.5], "3": "x", "ok": [True, None]}
