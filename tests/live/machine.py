"""A throwaway copy of this machine with systemd as its first process: an overlay over /, processes
and control groups of its own.

Nothing that happens in it reaches the machine's own files, services or control groups; the network
is shared, for the tests' own servers. What a daemon has left on the machine is not in it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from live.place import eventually, private_folder

BOOT = """\
set -eu
mount --make-rprivate /
mount -t tmpfs -o mode=755 tmpfs "$1"
cd "$1"
mkdir upper work root
mount -t overlay overlay -o lowerdir=/,upperdir=upper,workdir=work root
cd root
mount -t proc proc proc
mount --rbind /sys sys
mount --rbind /dev dev
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=1777 tmpfs tmp
rm -rf etc/dmarc-milter var/lib/dmarc-milter
mkdir -p run/lock run/systemd/system
cp "$2"/*.deb run/
mkdir -p old
pivot_root . old
umount -l /old
rmdir /old
chroot . dpkg --force-confnew --install /run/*.deb >/run/dpkg.log 2>&1 ||
    { cat /run/dpkg.log >&2; exit 1; }
ln -s /dev/null /etc/systemd/system/network-online.target
cat > /run/systemd/system/quiet.target <<END
[Unit]
DefaultDependencies=no
END
exec env -i container=unshare PATH=/usr/sbin:/usr/bin:/sbin:/bin \
    /usr/lib/systemd/systemd --system --unit=quiet.target --log-target=console --show-status=no
"""
DROP_IN = """\
[Unit]
DefaultDependencies=no
[Service]
StandardOutput=append:/run/dmarc-milter.log
StandardError=append:/run/dmarc-milter.log
"""
"""The units as they are, without the rest of a system that would start before them and keep their
log."""
SERVICES = ("dmarc-milter", "dmarc-milter-drain", "dmarc-milter-report", "dmarc-milter-web")
UNSHARE = ("unshare", "--pid", "--mount", "--uts", "--ipc", "--cgroup", "--fork", "--kill-child")


class Machine:
    """Running. `enter` gives a command in it."""

    def __init__(self, folder: Path, package: Path) -> None:
        self._folder = folder
        self._groups = (
            Path(
                "/sys/fs/cgroup/unified"
                if Path("/sys/fs/cgroup/unified").is_dir()
                else "/sys/fs/cgroup"
            )
            / folder.name
        )
        self._process: subprocess.Popen[bytes] | None = None
        self._package = package
        self.pid = 0

    def start(self) -> None:
        (self._folder / "boot.sh").write_text(BOOT)
        (self._folder / "disk").mkdir()
        (self._folder / "package").mkdir()
        shutil.copy(self._package, self._folder / "package")
        self._groups.mkdir()

        def join() -> None:
            (self._groups / "cgroup.procs").write_text(str(os.getpid()))

        with (self._folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [
                    *UNSHARE,
                    "sh",
                    self._folder / "boot.sh",
                    self._folder / "disk",
                    self._folder / "package",
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=join,  # noqa: PLW1509 - no threads touch what it does
            )
        eventually(self._is_up, seconds=90, what="systemd answers")
        for name in SERVICES:
            self.write(f"/etc/systemd/system/{name}.service.d/test.conf", DROP_IN)
        self.write(
            "/etc/systemd/system/dmarc-milter.socket.d/test.conf",
            "[Unit]\nDefaultDependencies=no\n",
        )
        self.systemctl("daemon-reload")

    def _is_up(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.text()
        children = (
            Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        )
        self.pid = int(children[0]) if children else 0
        return bool(self.pid) and Path(f"/proc/{self.pid}/root/run/systemd/private").exists()

    def text(self) -> str:
        """What systemd and the units have said."""
        log = Path(f"/proc/{self.pid}/root/run/dmarc-milter.log")
        return (self._folder / "log").read_text(errors="replace") + (
            log.read_text(errors="replace") if log.exists() else ""
        )

    def path(self, name: str) -> Path:
        """A file of the machine, seen from outside."""
        return Path(f"/proc/{self.pid}/root{name}")

    def write(self, name: str, text: str) -> None:
        """Keeps the owner and mode of a file that exists."""
        self.path(name).parent.mkdir(parents=True, exist_ok=True)
        self.path(name).write_text(text)

    def enter(self, *command: str, check: bool = True) -> str:
        """What a command says, all of it."""
        done = subprocess.run(
            [
                "nsenter",
                f"--target={self.pid}",
                "--pid",
                "--mount",
                "--uts",
                "--ipc",
                "--cgroup",
                *command,
            ],
            check=False,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd="/",
        )
        assert not check or done.returncode == 0, f"{command}\n{done.stdout}\n{self.text()[-4000:]}"
        return done.stdout

    def systemctl(self, *arguments: str, check: bool = True) -> str:
        return self.enter("systemctl", *arguments, check=check)

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        eventually(self._groups_gone, what="its control groups are empty")

    def _groups_gone(self) -> bool:
        for path in sorted(self._groups.glob("**/"), reverse=True):
            with contextlib.suppress(OSError):
                path.rmdir()
        return not self._groups.exists()


def require_machine() -> None:
    """Skip where the kernel does not let us make one: a container within a container, say."""
    script = 'mount --make-rprivate / && mount -t tmpfs tmpfs "$1" && cd "$1" && mkdir u w r && '
    script += (
        "mount -t overlay overlay -o lowerdir=/,upperdir=u,workdir=w r && mount -t cgroup2"
        " cgroup2 u"
    )
    with private_folder("probe") as folder:
        tried = subprocess.run(
            [*UNSHARE, "sh", "-c", script, "sh", folder],
            check=False,
            capture_output=True,
            text=True,
        )
    if tried.returncode or not Path("/usr/lib/systemd/systemd").exists():
        pytest.skip(f"systemd cannot be run here: {tried.stderr.strip() or 'it is not installed'}")


@contextmanager
def private_machine(package: Path) -> Iterator[Machine]:
    """The machine with the package installed, as long as the block."""
    require_machine()
    with private_folder("machine") as folder:
        machine = Machine(folder, package)
        try:
            machine.start()
            yield machine
        finally:
            machine.stop()
