"""Files that root opens before it gives up its rights: nobody else chooses which (docs/attacks.md,
Whom we trust)."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dmarc_milter.cli.main import main
from dmarc_milter.config import parse, root_files
from dmarc_milter.config.checks import socket_address
from dmarc_milter.ledger import sqlite_file
from dmarc_milter.ledger.errors import SpoolError
from dmarc_milter.ledger.spool.file import prepare
from dmarc_milter.process import privileges, sockets
from fakes.daemon import Daemon, toml

STRANGER = 65534
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="gives files to another account")


def link(path: Path, target: Path, owner: int = STRANGER) -> Path:
    """A symbolic link of another account's."""
    path.symlink_to(target)
    os.chown(path, owner, owner, follow_symlinks=False)
    return path


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "etc" / "c.toml"
    path.parent.mkdir()
    path.write_text(
        toml(
            {
                "milter": {"socket": f"unix:{tmp_path}/s"},
                "store": {"url": f"sqlite:///{tmp_path}/r.db"},
            }
        )
    )
    return path


def test_a_pid_file_that_is_a_symbolic_link_is_refused(
    tmp_path: Path, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """OPS-10: whoever owns the directory could have root write over any file; a link to nowhere
    makes none either."""
    precious = tmp_path / "precious"
    precious.write_text("keep me")
    for target in (precious, tmp_path / "none"):
        pid = tmp_path / f"pid-{target.name}"
        pid.symlink_to(target)
        assert main(["serve", "--config", str(config), "--pid-file", str(pid)]) == 2
        assert (
            f"--pid-file {pid}: cannot be written: is a symbolic link, which is refused"
            in capsys.readouterr().err
        )
    assert precious.read_text() == "keep me"
    assert not (tmp_path / "none").exists()


def a_hard_link(folder: Path) -> Path:
    (folder / "precious").write_text("keep me")
    (folder / "pid").hardlink_to(folder / "precious")
    return folder / "pid"


def a_pipe(folder: Path) -> Path:
    os.mkfifo(folder / "pid")
    return folder / "pid"


def a_device(folder: Path) -> Path:
    del folder
    return Path("/dev/null")


def below_a_foreign_link(folder: Path) -> Path:
    (folder / "real").mkdir()
    return link(folder / "run", folder / "real") / "pid"


def where_everybody_writes(folder: Path) -> Path:
    (folder / "open").mkdir()
    (folder / "open").chmod(0o777)
    return folder / "open" / "pid"


def in_a_circle(folder: Path) -> Path:
    return link(folder / "run", folder / "run" / "x", 0) / "pid"


@needs_root
@pytest.mark.parametrize(
    "place",
    [a_hard_link, a_pipe, a_device, below_a_foreign_link, where_everybody_writes, in_a_circle],
)
def test_a_file_that_somebody_else_may_have_chosen_is_refused(
    tmp_path: Path, place: Callable[[Path], Path]
) -> None:
    """OPS-11: and nothing is written, made or waited for."""
    path = place(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(OSError):
        os.close(root_files.make(path))
    assert sorted(tmp_path.rglob("*")) == before


def test_the_links_of_a_system_are_followed(tmp_path: Path) -> None:
    """As /var/run is one, and what a configuration store makes: root's or our own."""
    (tmp_path / "run").mkdir()
    link(tmp_path / "var", Path("run"), os.geteuid())
    os.close(root_files.make(tmp_path / "var" / "pid"))
    assert (tmp_path / "run" / "pid").read_bytes() == b""
    (tmp_path / "real").write_text("x")
    link(tmp_path / "conf", tmp_path / "var" / ".." / "real", os.geteuid())
    assert root_files.read_bytes(tmp_path / "conf") == b"x"


@needs_root
def test_a_configuration_that_others_could_have_put_there_is_refused_by_root(
    tmp_path: Path, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """OPS-12: it says who the daemon becomes. A link of root's own is fine; the messages name the
    file and the reason."""
    assert main(["config", "show", "--config", str(link(tmp_path / "fine", config, 0))]) == 0
    assert main(["config", "show", "--config", str(link(tmp_path / "foreign", config))]) == 2
    assert (
        "foreign: cannot be read: leads through a symbolic link that another account made"
        in capsys.readouterr().err
    )
    config.chmod(0o666)
    assert main(["config", "show", "--config", str(config)]) == 2
    assert "cannot be read: everybody can write it: chmod o-w" in capsys.readouterr().err


@needs_root
def test_a_spool_behind_somebody_else_s_link_is_refused(tmp_path: Path) -> None:
    """OPS-13: SQLite would follow it."""
    (tmp_path / "other.db").touch()
    with pytest.raises(SpoolError, match="symbolic link that another account made"):
        prepare(link(tmp_path / "spool.db", tmp_path / "other.db"))
    assert (tmp_path / "other.db").read_bytes() == b""


@pytest.fixture
def sticky(tmp_path: Path) -> Path:
    """A directory like /tmp."""
    folder = tmp_path / "sticky"
    folder.mkdir()
    folder.chmod(0o1777)
    return folder


@needs_root
def test_what_another_account_put_into_a_directory_like_tmp_is_refused(sticky: Path) -> None:
    """FIL-20: it may be waiting there for root to come. What root or this account put there is
    read, and what is in somebody's directory there as anywhere."""
    path = sticky / "c.toml"
    path.write_text("x")
    assert root_files.read_bytes(path) == b"x"
    os.chown(path, STRANGER, STRANGER)
    for opened in (root_files.read_bytes, root_files.make):
        with pytest.raises(PermissionError, match=r"another account put it into .*sticky"):
            opened(path)
    assert path.read_text() == "x"
    folder = sticky / "folder"
    folder.mkdir()
    os.chown(folder, STRANGER, STRANGER)
    path = path.rename(folder / "c.toml")
    assert root_files.read_bytes(path) == b"x"


@needs_root
def test_a_volume_of_kubernetes_is_read(sticky: Path) -> None:
    """FIL-20: its directory is like /tmp, and each file is a link by way of a dated directory, all
    of them root's."""
    (sticky / "..2026_11_30").mkdir(mode=0o755)
    (sticky / "..2026_11_30" / "c.toml").write_text("x")
    (sticky / "..data").symlink_to("..2026_11_30")
    (sticky / "c.toml").symlink_to("..data/c.toml")
    assert root_files.read_bytes(sticky / "c.toml") == b"x"


def test_a_pid_file_that_everybody_can_write_is_refused(tmp_path: Path) -> None:
    """FIL-21: root ends the process whose number stands there."""
    path = tmp_path / "pid"
    path.write_text("1")
    path.chmod(0o666)
    with pytest.raises(PermissionError, match=f"everybody can write it: chmod o-w {path}"):
        root_files.make(path)
    assert path.read_text() == "1"


def test_what_is_above_a_link_is_where_the_kernel_says(tmp_path: Path) -> None:
    """FIL-22: `link/..` is above what the link leads to, not beside the link."""
    (tmp_path / "far" / "real").mkdir(parents=True)
    (tmp_path / "far" / "pid").write_text("far")
    (tmp_path / "pid").write_text("near")
    (tmp_path / "link").symlink_to("far/real")
    with os.fdopen(root_files.make(tmp_path / "link" / ".." / "pid"), "rb") as file:
        assert file.read() == b"far"


def test_a_refusal_says_what_to_do(tmp_path: Path) -> None:
    """FIL-23: one line, with the directory that is wrong."""
    (tmp_path / "open").mkdir()
    (tmp_path / "open" / "deep").mkdir()
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(PermissionError, match=f"everybody can write to: chmod o-w {tmp_path}/open"):
        root_files.make(tmp_path / "open" / "deep" / "pid")
    (tmp_path / "link").symlink_to("x")
    with pytest.raises(OSError, match="symbolic link, which is refused: name the file itself"):
        root_files.make(tmp_path / "link")
    (tmp_path / "one").touch()
    (tmp_path / "two").hardlink_to(tmp_path / "one")
    with pytest.raises(OSError, match=r"another name too \(a hard link\), .*: remove it"):
        root_files.make(tmp_path / "two")


@needs_root
def test_root_gives_no_file_away_that_was_there_before(tmp_path: Path) -> None:
    """FIL-24: a spool's lock that is a hard link to something of root's. A file that root makes
    in the service's directory is the service's."""
    folder = tmp_path / "lib"
    folder.mkdir()
    os.chown(folder, STRANGER, STRANGER)
    (tmp_path / "shadow").write_text("secret")
    (folder / "lock").hardlink_to(tmp_path / "shadow")
    os.close(sqlite_file._open_file(folder / "lock"))
    assert (tmp_path / "shadow").stat().st_uid == 0
    os.close(sqlite_file._open_file(folder / "new"))
    assert (folder / "new").stat().st_uid == STRANGER


@needs_root
@pytest.mark.parametrize(
    ("owner", "group", "mode", "folder", "said"),
    [
        (0, STRANGER, 0o640, 0o750, ""),
        (0, 0, 0o644, 0o755, ""),
        (0, 0, 0o664, 0o775, ""),
        (STRANGER, STRANGER, 0o640, 0o755, "the account nobody can write to"),
        (0, STRANGER, 0o660, 0o755, "the group nogroup can write to"),
        (0, STRANGER, 0o640, 0o770, "the group nogroup can write to"),
        (0, 0, 0o644, 0o1777, ""),
    ],
)
def test_whoever_could_become_root_by_the_settings_is_named(
    config: Path, owner: int, group: int, mode: int, folder: int, said: str
) -> None:
    """FIL-25: `user` in the file says who the daemon becomes. It starts all the same: a warning."""
    os.chown(config, owner, group)
    config.chmod(mode)
    os.chown(config.parent, 0, group)
    config.parent.chmod(folder)
    found = list(root_files.changeable(config))
    assert [each for each in found if said in each] == found
    assert bool(found) == bool(said)


@pytest.fixture
def reachable() -> Iterator[Path]:
    """A folder into which other accounts come, as they do not into pytest's."""
    with tempfile.TemporaryDirectory(prefix="dmarc-milter-guarded-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@needs_root
def test_a_daemon_set_up_as_debian_does_starts_without_a_word(reachable: Path) -> None:
    """FIL-26: settings of root with the service's group (0640), a directory of the service's own,
    a pid file by way of /var/run. It is emptied where the service may not remove it."""
    for name in ("run", "var", "lib"):
        (reachable / name).mkdir()
    (reachable / "var" / "run").symlink_to("../run")
    os.chown(reachable / "lib", STRANGER, STRANGER)
    pid = reachable / "var" / "run" / "pid"
    daemon = Daemon(
        reachable,
        {
            "milter": {"user": "nobody", "workers": 1, "socket": f"unix:{reachable}/lib/s"},
            "store": {"url": f"sqlite:///{reachable}/lib/r.db"},
        },
        command=("-m", "dmarc_milter", "serve", "--no-jobs", f"--pid-file={pid}", "--config"),
    )
    os.chown(daemon.config, 0, STRANGER)
    daemon.config.chmod(0o640)
    with daemon:
        assert daemon.process is not None
        assert int(pid.read_text()) == daemon.process.pid
        assert "warning" not in daemon.text()
        daemon.signal(signal.SIGTERM)
        assert daemon.process.wait(20) == 0
    assert pid.read_text() == ""


@needs_root
def test_a_socket_s_mode_and_group_are_given_to_the_socket_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FIL-27: who may write to its directory cannot have root change another file's."""
    (tmp_path / "shadow").write_text("secret")
    (tmp_path / "shadow").chmod(0o600)
    path = tmp_path / "s"
    opened = os.open

    def exchanged(name: Any, *arguments: Any, **more: Any) -> int:
        number = opened(name, *arguments, **more)
        if name == str(path):
            path.unlink()
            path.symlink_to("shadow")
        return number

    monkeypatch.setattr(os, "open", exchanged)
    with sockets.listen(socket_address(f"unix:{path}"), mode=0o666, group="nogroup"):
        assert (tmp_path / "shadow").stat().st_mode & 0o777 == 0o600
        assert (tmp_path / "shadow").stat().st_gid == 0


def test_a_socket_where_everybody_may_put_another_is_said(tmp_path: Path) -> None:
    """FIL-28: a warning, since a volume that containers share is like this."""
    options = parse(f'[milter]\nsocket = "unix:{tmp_path}/s"\n')
    for mode, expected in ((0o755, 0), (0o777, 1), (0o1777, 0)):
        tmp_path.chmod(mode)
        found = privileges.warnings(options)
        assert sum(f"chmod o-w {tmp_path}" in each for each in found) == expected, mode
