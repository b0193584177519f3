"""Killed or out of space at every step: the device's folder holds the old state or the new one, whole.

A process applies a package again and again to copies of one folder, and each time a child of it is killed, or told that
the disk is full, at the next thing that it does to the file system: at the opening of a file, in the middle of its
content, at its flush, at each name that is given or taken.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from squeezedet.errors import SqueezeDetError
from squeezedet.ota import device, package

from .vendor import NOW, Fleet

if sys.platform == "win32":
    pytest.skip("fork and kill -9", allow_module_level=True)

SCRIPT = r"""
import errno, os, shutil, signal, sys
from datetime import datetime
from itertools import count
from pathlib import Path

from squeezedet.errors import SqueezeDetError
from squeezedet.ota import device, package

how, template, work, path, keys, now = sys.argv[1:]
template, work, now = Path(template), Path(work), datetime.fromisoformat(now)
package.check_samples = lambda opened, parts: None  # it changes nothing, and engines have threads
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
NAMES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod")


def change(folder):
    return device.apply(Path(path), folder, Path(keys), now=now)[0] if path else device.rollback(folder)


def child(folder, last):
    done = 0

    def step():
        nonlocal done
        done += 1
        if done == last and how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if done >= last and how == "full":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def hook(event, arguments):
        here = arguments and isinstance(arguments[0], str | os.PathLike) and str(arguments[0]).startswith(str(folder))
        opened = event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITING
        removed = event in ("os.remove", "os.rmdir")  # a full disk lets one
        if here and (opened or (event in NAMES and not (how == "full" and removed))):
            step()

    fsync, write_bytes = os.fsync, Path.write_bytes

    def half(self, content):
        write_bytes(self, content[: len(content) // 2])
        step()
        return write_bytes(self, content)

    Path.write_bytes = half
    os.fsync = lambda descriptor: (step(), fsync(descriptor))
    sys.addaudithook(hook)
    try:
        change(folder)
    except SqueezeDetError as error:
        os._exit(1 if "No space left on device" in str(error) and "\n" not in str(error) else 9)
    except BaseException:
        import traceback
        traceback.print_exc()
        os._exit(9)
    os._exit(0)


def whole(folder):
    state = device.read_state(folder)
    if state is None:
        return None
    for model in filter(None, (state.current, state.previous)):
        device.read_model(folder, model)
    return state.current.version


old = whole(template)
shutil.copytree(template, work / "goal")
new = change(work / "goal").current.version
for number in count(1):
    folder = work / str(number)
    shutil.copytree(template, folder)
    pid = os.fork()
    if not pid:
        child(folder, number)
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    if code == 0:
        assert whole(folder) == new
        break
    assert code == (-9 if how == "kill" else 1), code
    found = whole(folder)
    assert found in (old, new), found
    if how == "full" and found == old:  # nothing half-written stays
        assert {p.name for p in folder.iterdir()} - {".lock"} <= {p.name for p in template.iterdir()}
    if path or found == old:
        assert change(folder).current.version == new
        names = {p.name for p in folder.iterdir()}
        assert names - {".lock"} == {p.name for p in (work / "goal").iterdir()}, names
    shutil.rmtree(folder)
print(number - 1)
"""


def steps(how: str, template: Path, work: Path, path: Path | str, fleet: Fleet) -> int:
    """How many steps there were to fail at; at none of them anything was lost."""
    words = [how, template, work, path, fleet.keys, NOW.isoformat()]
    done = subprocess.run([sys.executable, "-c", SCRIPT, *map(str, words)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return int(done.stdout.split()[-1])


@pytest.mark.slow
@pytest.mark.parametrize("how", ["kill", "full"])
@pytest.mark.parametrize("work", ["first", "update", "third", "rollback"])
def test_at_every_step(fleet: Fleet, tmp_path: Path, how: str, work: str) -> None:
    template = tmp_path / "template"
    template.mkdir()
    package_path: Path | str = fleet.whole[0]
    if work != "first":
        device.apply(fleet.whole[0], template, fleet.keys, now=NOW)
        package_path = fleet.delta[1]
    if work in ("third", "rollback"):
        device.apply(fleet.delta[1], template, fleet.keys, now=NOW)
        package_path = fleet.delta[2]
    if work == "rollback":
        package_path = ""
    (tmp_path / "work").mkdir()
    assert steps(how, template, tmp_path / "work", package_path, fleet) >= 6


def test_a_disk_that_is_really_full(fleet: Fleet, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = shutil.which("mount")
    made = mount and subprocess.run(
        [mount, "-t", "tmpfs", "-o", "size=1600k", "tmpfs", disk], check=False, stderr=subprocess.DEVNULL
    )
    if not made or made.returncode:
        pytest.skip("only root may mount a small disk")
    try:
        device.apply(fleet.whole[0], disk / "d", fleet.keys, now=NOW)
        before = {path.name: path.read_bytes() for path in (disk / "d").iterdir()}
        for path in (fleet.delta[1], fleet.whole[1]):
            with pytest.raises(SqueezeDetError, match="No space left on device") as caught:
                device.apply(path, disk / "d", fleet.keys, now=NOW)
            assert caught.value.exit_code == 1
            assert {path.name: path.read_bytes() for path in (disk / "d").iterdir()} == before
        package.read(fleet.delta[1], device.read_trusted(fleet.keys))
    finally:
        subprocess.run(["umount", disk], check=True)
