"""Who may read the files with secrets: on a machine with other accounts, and in a container."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from dmarc_milter.config import secret_files
from dmarc_milter.config.secret_files import RUN_SECRETS, is_open_to_all

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(("mode", "open_to_all"), [(0o644, True), (0o444, True), (0o640, False)])
def test_a_secret_that_everybody_may_read_is_open(
    tmp_path: Path, mode: int, open_to_all: bool
) -> None:
    file = tmp_path / "secret"
    file.write_text("x")
    file.chmod(mode)
    assert is_open_to_all(file) == open_to_all


def test_a_file_that_somebody_wrote_below_run_secrets_is_judged_as_any_other(
    tmp_path: Path,
) -> None:
    """The name of the folder alone proves nothing: no engine has mounted it."""
    folder = tmp_path / "run/secrets"
    folder.mkdir(parents=True)
    (folder / "secret").write_text("x")
    (folder / "secret").chmod(0o444)
    assert is_open_to_all(folder / "secret", folder)


PROBE = """
import sys
from pathlib import Path
from dmarc_milter.config import secret_files
secret_files.MARKS = ()
for path in sys.argv[1:]:
    print(secret_files.is_open_to_all(Path(path)))
"""
CONTAINER = {"container": "oci"}


def answers(
    folder: Path, script: list[str], paths: list[str], environment: dict[str, str] = CONTAINER
) -> list[bool]:
    """What is_open_to_all says after these commands, in a mount namespace of our own with an empty
    /run."""
    probe = shlex.join([sys.executable, "-c", PROBE, *paths])
    text = "\n".join(["mount -t tmpfs tmpfs /run", f"mkdir {RUN_SECRETS}", *script, probe])
    done = subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "sh", "-euc", text],
        capture_output=True,
        check=False,
        text=True,
        cwd=folder,
        env=without_marks() | environment | {"PYTHONPATH": str(ROOT / "milter")},
    )
    assert done.returncode == 0, done.stderr
    return [line == "True" for line in done.stdout.split()]


def without_marks() -> dict[str, str]:
    marks = ("container", "KUBERNETES_SERVICE_HOST")
    return {name: value for name, value in os.environ.items() if name not in marks}


def can_mount() -> bool:
    probe = ["unshare", "--mount", "sh", "-c", "mount -t tmpfs tmpfs /run"]
    return subprocess.run(probe, check=False, capture_output=True).returncode == 0


def mounted(name: str, *, mode: str = "444", owner: int = 0, read_only: bool = False) -> list[str]:
    """A file of the host that an engine has mounted over /run/secrets/NAME."""
    place = f"/run/secrets/{name}"
    lines = [f"echo x > {name}; chmod {mode} {name}; chown {owner} {name}; touch {place}"]
    lines += [f"mount --bind {name} {place}"]
    return [*lines, f"mount -o remount,bind,ro {place}"] if read_only else lines


def test_what_an_engine_mounts_below_run_secrets_is_closed(tmp_path: Path) -> None:
    """docs/how-to/container.md: its mode, 0444 or 0644, cannot be changed in a container, and
    nobody else is in there. What others could replace stays open."""
    if not can_mount():
        pytest.skip("no mount namespace of our own is allowed here")
    folder = "/run/secrets/kubernetes"
    script = [
        *mounted("docker", read_only=True),
        *mounted("podman"),
        *mounted("compose", mode="644", owner=1000, read_only=True),
        *mounted("another-account", mode="644", owner=1000),
        *mounted("writable", mode="646"),
        f"mkdir {folder} && mount -t tmpfs -o mode=1777 tmpfs {folder} && mkdir {folder}/..1",
        f"echo x > {folder}/..1/s && chmod 644 {folder}/..1/s",
        f"ln -s ..1 {folder}/..data && ln -s ..data/s {folder}/s",
        "echo x > /run/secrets/by-hand && chmod 444 /run/secrets/by-hand",
        "echo x > outside && chmod 444 outside && ln -s $PWD/outside /run/secrets/link",
    ]
    expected = {
        "docker": False,
        "podman": False,
        "compose": False,
        "kubernetes/s": False,
        "another-account": True,
        "writable": True,
        "by-hand": True,
        "link": True,
    }
    found = answers(tmp_path, script, [f"/run/secrets/{name}" for name in expected])
    assert dict(zip(expected, found, strict=True)) == expected


def test_what_is_mounted_there_on_a_plain_machine_is_judged_as_any_other(tmp_path: Path) -> None:
    """Its accounts can read it."""
    if not can_mount():
        pytest.skip("no mount namespace of our own is allowed here")
    script = mounted("key", mode="644")
    assert answers(tmp_path, script, ["/run/secrets/key"], {}) == [True]
    assert answers(tmp_path, script, ["/run/secrets/key"]) == [False]


@pytest.mark.parametrize(
    ("environment", "file", "inside"),
    [
        ({}, False, False),
        ({}, True, True),
        ({"container": "podman"}, False, True),
        ({"container": "lxc"}, False, False),
        ({"container": "systemd-nspawn"}, False, False),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, False, True),
    ],
)
def test_an_application_s_container_has_a_mark(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    environment: dict[str, str],
    file: bool,
    inside: bool,
) -> None:
    """A system's container (LXC, nspawn) has accounts like any machine."""
    mark = tmp_path / ".containerenv"
    if file:
        mark.touch()
    monkeypatch.setattr(secret_files, "MARKS", (mark,))
    monkeypatch.setattr(os, "environ", environment)
    assert secret_files.in_container() == inside


def test_a_service_s_own_read_only_view_closes_nothing(tmp_path: Path) -> None:
    """ProtectSystem=strict mounts the machine's own folders read-only, over themselves."""
    if not can_mount():
        pytest.skip("no mount namespace of our own is allowed here")
    script = [
        "echo x > /run/secrets/s; chmod 444 /run/secrets/s",
        "mount --bind /run/secrets /run/secrets && mount -o remount,bind,ro /run/secrets",
    ]
    assert answers(tmp_path, script, ["/run/secrets/s"]) == [True]
