"""What an administrator installs: the Debian package in a private root, and the wheel and source
archive by pip and pipx."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from dmarc_milter import __version__
from dmarc_milter.cli.main import COMMANDS
from fakes.daemon import Daemon
from fakes.dns_server import DnsServer
from live.package import WORK, build_deb
from live.place import REPOSITORY, give_up, private_folder
from live.scenarios import AUTHSERV_ID, zone

pytestmark = [pytest.mark.live, pytest.mark.slow, pytest.mark.timeout(900)]

SOURCE = REPOSITORY / "milter/dmarc_milter"
TOOLS = ("pipx", "pip")
"""pipx fetches a pip of its own."""
EXTRA_DATA = {
    path.relative_to(SOURCE.parent)
    for path in SOURCE.rglob("*")
    if path.is_file() and path.suffix not in (".py", ".pyc")
}
"""Schemas, templates, pages: what a package forgets."""


def run(
    *command: object, environment: dict[str, str] | None = None, cwd: Path | None = None
) -> str:
    """Standard output of a command that must end well."""
    done = subprocess.run(
        [str(each) for each in command],
        capture_output=True,
        check=False,
        text=True,
        cwd=cwd,
        env=os.environ | (environment or {}),
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


def works(program: Path, *, environment: dict[str, str] | None = None) -> None:
    """What every installation must be able to do: say its version, and print the sample that the
    sources have."""
    assert (
        run(program, "--version", environment=environment, cwd=Path("/"))
        == f"dmarc-milter {__version__}\n"
    )
    assert (
        run(program, "config", "sample", environment=environment, cwd=Path("/"))
        == (REPOSITORY / "conf/dmarc-milter.toml").read_text()
    )
    text = run(program, "--help", environment=environment, cwd=Path("/"))
    for command in ("serve", "setup", "import", "report", "web"):
        assert command in text


# -- Debian package --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def deb() -> Path:
    return build_deb()


class Root:
    """A private root into which packages are installed; maintainer scripts run with DPKG_ROOT,
    outside of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder.with_name("dpkg.log")
        for name in ("info", "updates", "triggers"):
            (folder / "var/lib/dpkg" / name).mkdir(parents=True)
        (folder / "var/lib/dpkg/status").touch()

    def dpkg(self, *arguments: object) -> str:
        options = (
            "--force-depends",
            "--force-script-chrootless",
            "--force-confold",
            f"--log={self.log}",
        )
        return run("dpkg", f"--root={self.folder}", *options, *arguments)

    @property
    def program(self) -> Path:
        return self.folder / "usr/bin/dmarc-milter"

    @property
    def serve(self) -> tuple[str, ...]:
        """For fakes.daemon: the installed daemon, with its jobs beside it."""
        return (
            "-c",
            (
                f"import os, sys; os.execv({str(self.program)!r}, ['dmarc-milter', 'serve',"
                " '--config', sys.argv[1]])"
            ),
        )

    def files(self) -> set[str]:
        """Everything but dpkg's own files and the accounts."""
        kept = ("var/lib/dpkg", "var/lib/systemd")
        names = (
            str(path.relative_to(self.folder))
            for path in self.folder.rglob("*")
            if not path.is_dir()
        )
        accounts = {
            f"etc/{name}{end}"
            for name in ("passwd", "group", "shadow", "gshadow")
            for end in ("", "-")
        } | {"etc/.pwd.lock"}
        return {name for name in names if not name.startswith(kept)} - accounts


@pytest.fixture(scope="module")
def root(deb: Path) -> Iterator[Root]:
    give_up("" if os.geteuid() == 0 else "dpkg needs root")
    with private_folder("deb") as folder:
        made = Root(folder / "root")
        made.dpkg("--install", deb)
        yield made


def test_the_package_says_what_it_needs(deb: Path) -> None:
    """This release's python3 and no other, and the library that pymilter was linked with."""
    minor = int(run("/usr/bin/python3", "-c", "import sys; print(sys.version_info[1])"))
    depends = run("dpkg-deb", "-f", deb, "Depends")
    assert f"python3 (>= 3.{minor}~), python3 (<< 3.{minor + 1}~)" in depends
    assert "libmilter" in depends
    assert "libc6 (>= " in depends
    listed = run("dpkg-deb", "-c", deb)
    assert "/.venv/" not in listed
    assert all(line.split()[1] == "root/root" for line in listed.splitlines())
    for name in EXTRA_DATA:
        assert f"./usr/lib/dmarc-milter/{name}" in listed, name


def test_the_package_has_every_document_and_a_manual_page_for_each_command(deb: Path) -> None:
    """tests/tools/test_documents.py reads them."""
    listed = run("dpkg-deb", "-c", deb)
    documents = "./usr/share/doc/dmarc-milter"
    for page in (REPOSITORY / "docs").rglob("*.md"):
        name = page.relative_to(REPOSITORY)
        assert f"{documents}/{name}\n" in listed
        assert f"{documents}/{name.with_suffix('.html')}\n" in listed
    for command in COMMANDS:
        assert f"./usr/share/man/man1/dmarc-milter-{command}.1.gz\n" in listed


def test_the_package_names_its_maintainer_from_the_one_place(deb: Path) -> None:
    """packaging/owner.toml; a control file cannot do without."""
    who = tomllib.loads((REPOSITORY / "packaging/owner.toml").read_text())
    maintainer = run("dpkg-deb", "-f", deb, "Maintainer").strip()
    assert maintainer == (who["maintainer"] or "dmarc-milter <root@localhost>")
    assert run("dpkg-deb", "-f", deb, "Homepage").strip() == who["home"]


def test_the_installed_package_has_its_account_and_a_private_configuration(root: Root) -> None:
    """The store's address and login may stand in the configuration."""
    entry = next(
        line
        for line in (root.folder / "etc/passwd").read_text().splitlines()
        if line.startswith("dmarc-milter:")
    )
    _, _, uid, gid, *_ = entry.split(":")
    conf = (root.folder / "etc/dmarc-milter/dmarc-milter.toml").stat()
    assert (conf.st_mode & 0o777, conf.st_uid, conf.st_gid) == (0o640, 0, int(gid))
    state = (root.folder / "var/lib/dmarc-milter").stat()
    assert (state.st_mode & 0o777, state.st_uid) == (0o750, int(uid))
    wants = root.folder / "etc/systemd/system"
    assert (wants / "multi-user.target.wants/dmarc-milter.service").is_symlink()
    assert (wants / "timers.target.wants/dmarc-milter-report.timer").is_symlink()


def test_the_installed_launcher_works_whatever_the_caller_s_python_settings(root: Root) -> None:
    """It stands on the package's libraries and on nothing of the caller's."""
    works(
        root.program,
        environment={"PYTHONPATH": "/nowhere", "PYTHONHOME": "/nowhere", "PYTHONWARNINGS": "error"},
    )
    folder = root.folder / "usr/lib/dmarc-milter"
    where = (
        "import dkim, lxml, dmarc_milter; print(dkim.__file__, lxml.__file__,"
        " dmarc_milter.__file__)"
    )
    shown = run("/usr/bin/python3", "-c", where, environment={"PYTHONPATH": str(folder)})
    assert [name.startswith(str(folder)) for name in shown.split()] == [True] * 3


def test_the_installed_daemon_serves_a_message(root: Root, tmp_path: Path) -> None:
    """From the private root, with its jobs beside it, every compiled library included."""
    with DnsServer(zone()) as dns:
        tables: dict[str, dict[str, object]] = {
            "dns": {"nameservers": [dns.nameserver]},
            "authentication": {"authserv_id": AUTHSERV_ID},
        }
        daemon = Daemon(tmp_path, {**tables, "milter": {"workers": 1}})
        daemon.command = root.serve
        with daemon, daemon.client() as mta:
            mta.connect("host.forwarder.example", "203.0.113.66")
            mta.helo("host.forwarder.example")
            answer = mta.message(
                [("From", "Alice <alice@sender.example>"), ("Subject", "x")],
                b"Hello.\r\n",
                mail_from="<alice@sender.example>",
            )
            assert answer.code == 550, daemon.text()


def test_started_by_root_the_daemon_becomes_its_account(root: Root) -> None:
    """OPS-04: supervisor, workers and jobs are the account, with its groups alone; nothing is
    written as root."""
    with private_folder("account") as folder:
        shutil.chown(folder, "nobody", "nogroup")
        daemon = Daemon(
            folder,
            {"milter": {"user": "nobody", "workers": 1, "socket": f"unix:{folder}/milter.sock"}},
        )
        daemon.command = root.serve
        with daemon:
            assert daemon.process is not None
            for pid in (daemon.process.pid, *daemon.children()):
                status = Path(f"/proc/{pid}/status").read_text()
                for pattern in (r"^Uid:(\t65534){4}$", r"^Gid:(\t65534){4}$", r"^CapEff:\t0+$"):
                    assert re.search(pattern, status, re.MULTILINE), status
            assert {
                path.stat().st_uid
                for path in folder.iterdir()
                if path.name in ("milter.sock", "spool.db")
            } == {65534}
            assert "runs as root" not in daemon.text()


def test_systemd_finds_nothing_to_say_about_the_installed_units(root: Root) -> None:
    """`systemd-analyze verify`, with the paths of the private root; manual pages are looked for
    where the package has them."""
    give_up("" if shutil.which("systemd-analyze") else "systemd-analyze is needed")
    manuals = (root.folder / "usr/share/man").is_dir()
    with private_folder("units") as folder:
        for path in (root.folder / "usr/lib/systemd/system").iterdir():
            (folder / path.name).write_text(
                path.read_text().replace("/usr/bin/dmarc-milter", str(root.program))
            )
        done = subprocess.run(
            [
                "systemd-analyze",
                "verify",
                "--recursive-errors=no",
                f"--man={'yes' if manuals else 'no'}",
                *sorted(folder.iterdir()),
            ],
            capture_output=True,
            check=False,
            text=True,
            env=os.environ | {"MANPATH": str(root.folder / "usr/share/man")},
        )
        assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_removal_keeps_the_configuration_and_purge_leaves_nothing(deb: Path) -> None:
    """An upgrade keeps what the administrator wrote; after a purge only the account is left."""
    give_up("" if os.geteuid() == 0 else "dpkg needs root")
    with private_folder("purge") as folder:
        root = Root(folder / "root")
        before = root.files()
        root.dpkg("--install", deb)
        conf = root.folder / "etc/dmarc-milter/dmarc-milter.toml"
        conf.write_text("[policy]\nenforce = false\n")
        (root.folder / "var/lib/dmarc-milter/reports.db").write_text("records")
        root.dpkg("--install", deb)
        assert conf.read_text() == "[policy]\nenforce = false\n"
        root.dpkg("--remove", "dmarc-milter")
        assert root.files() - before >= {
            "etc/dmarc-milter/dmarc-milter.toml",
            "var/lib/dmarc-milter/reports.db",
        }
        assert not root.program.exists()
        assert not (root.folder / "usr/lib/dmarc-milter").exists()
        root.dpkg("--purge", "dmarc-milter")
        assert root.files() == before
        assert not conf.parent.exists()


# -- pip -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A source archive from the sources, and a wheel from that archive."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--outdir", folder, REPOSITORY)
    return folder


@pytest.fixture(scope="module")
def libraries() -> Path:
    """Wheels of everything that the wheel needs, made once for each pyproject.toml."""
    folder = WORK / "wheels"
    stamp = folder / "pyproject.toml"
    text = f"{(REPOSITORY / 'pyproject.toml').read_text()}{sys.version}{TOOLS}"
    if not stamp.exists() or stamp.read_text() != text:
        shutil.rmtree(folder, ignore_errors=True)
        run(
            sys.executable,
            "-m",
            "pip",
            "wheel",
            "--quiet",
            "--wheel-dir",
            folder,
            f"{REPOSITORY}[postgresql]",
            *TOOLS,
        )
        for own in folder.glob("dmarc_milter-*"):
            own.unlink()
        stamp.write_text(text)
    return folder


def test_the_archives_hold_the_package_and_its_data_and_no_more(dist: Path) -> None:
    """The wheel only dmarc_milter; the archive what is needed to build and test it."""
    (wheel,) = dist.glob("*.whl")
    names = {Path(name) for name in zipfile.ZipFile(wheel).namelist()}
    assert {name.parts[0] for name in names} == {
        "dmarc_milter",
        f"dmarc_milter-{__version__}.dist-info",
    }
    assert names >= EXTRA_DATA
    assert not any("__pycache__" in name.parts for name in names)
    (archive,) = dist.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        held = {Path(*Path(name).parts[1:]) for name in tar.getnames()}
    assert held >= {
        Path(name)
        for name in (
            "LICENSE",
            "README.md",
            "conf/dmarc-milter.toml",
            "systemd/dmarc-milter.service",
            "tools/deb.sh",
        )
    }
    assert not any(
        name.parts and name.parts[0] in (".venv", ".test", "dist", "build") for name in held
    )


def test_pip_installs_the_wheel_into_a_clean_environment(
    dist: Path, libraries: Path, tmp_path: Path
) -> None:
    """Nothing but what the wheel asks for, which needs no compiler: no pymilter, and our own code
    serves."""
    (wheel,) = dist.glob("*.whl")
    run(sys.executable, "-m", "venv", tmp_path / "venv")
    run(
        tmp_path / "venv/bin/pip",
        "install",
        "--quiet",
        "--no-index",
        "--find-links",
        libraries,
        wheel,
    )
    works(tmp_path / "venv/bin/dmarc-milter", environment={"PYTHONPATH": ""})
    assert run(tmp_path / "venv/bin/pip", "check") == "No broken requirements found.\n"
    assert "pymilter" not in run(tmp_path / "venv/bin/pip", "list")
    serves_without_pymilter(tmp_path / "venv/bin/dmarc-milter", tmp_path)


def serves_without_pymilter(program: Path, folder: Path) -> None:
    """It says so in one line, and judges a message."""
    arguments = "['dmarc-milter', 'serve', '--no-jobs', '--config', sys.argv[1]]"
    command = ("-c", f"import os, sys; os.execv({str(program)!r}, {arguments})")
    with DnsServer({"_dmarc.b.example": {"TXT": ["v=DMARC1; p=reject"]}}) as dns:
        tables = {"milter": {"library": "pymilter"}, "dns": {"nameservers": [dns.nameserver]}}
        daemon = Daemon(folder, tables, command=command)
        daemon.environment = {"PYTHONPATH": ""}
        with daemon, daemon.client() as mta:
            said = "library: native, because pymilter is not installed"
            assert any(said in line for line in daemon.lines())
            mta.connect("client.example", "192.0.2.1")
            mta.helo("client.example")
            assert mta.message([("From", " a@b.example")]).code == 550


def test_pipx_installs_the_wheel(dist: Path, libraries: Path, tmp_path: Path) -> None:
    """The command is where pipx puts commands; the libraries are nobody else's."""
    (wheel,) = dist.glob("*.whl")
    run(sys.executable, "-m", "venv", tmp_path / "tool")
    run(
        tmp_path / "tool/bin/pip",
        "install",
        "--quiet",
        "--no-index",
        "--find-links",
        libraries,
        "pipx",
    )
    places = {
        "PIPX_HOME": str(tmp_path / "home"),
        "PIPX_BIN_DIR": str(tmp_path / "bin"),
        "PIPX_MAN_DIR": str(tmp_path / "man"),
        "PYTHONPATH": "",
    }
    offline = f"--no-index --find-links {libraries}"
    run(
        tmp_path / "tool/bin/pipx",
        "install",
        "--python",
        sys.executable,
        "--pip-args",
        offline,
        wheel,
        environment=places,
    )
    works(tmp_path / "bin/dmarc-milter", environment=places)
