"""Files that root opens before it gives up its rights: nobody else chooses which (docs/attacks.md,
Whom we trust)."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from dmarc_milter.cli.main import main
from dmarc_milter.config import guarded
from dmarc_milter.ledger.spool.file import SpoolError, prepare
from fakes.daemon import toml

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
        os.close(guarded.make(path))
    assert sorted(tmp_path.rglob("*")) == before


def test_the_links_of_a_system_are_followed(tmp_path: Path) -> None:
    """As /var/run is one, and what a configuration store makes: root's or our own."""
    (tmp_path / "run").mkdir()
    link(tmp_path / "var", Path("run"), os.geteuid())
    os.close(guarded.make(tmp_path / "var" / "pid"))
    assert (tmp_path / "run" / "pid").read_bytes() == b""
    (tmp_path / "real").write_text("x")
    link(tmp_path / "conf", tmp_path / "var" / ".." / "real", os.geteuid())
    assert guarded.read_bytes(tmp_path / "conf") == b"x"


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
