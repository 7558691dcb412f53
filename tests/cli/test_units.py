"""Which unit serves a configuration, so that no remedy acts on another instance: the usual files
have theirs, any other is looked for in the units of the host (systemd.unit(5))."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from dmarc_milter.checks import account, remedies, service
from dmarc_milter.cli import running
from dmarc_milter.cli.main import main
from dmarc_milter.config import DEFAULT_PATH, instance
from dmarc_milter.process import daemons

TEMPLATES = Path(__file__).parents[2] / "tools/instance_units.sh"
SERVE = "/usr/bin/dmarc-milter serve --no-jobs"


@pytest.fixture
def units(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "units"
    folder.mkdir()
    monkeypatch.setattr(instance, "UNIT_FOLDERS", (folder,))
    return folder


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text("")
    return path


def write(units: Path, name: str, *lines: str) -> None:
    (units / name).parent.mkdir(exist_ok=True)
    (units / name).write_text("[Service]\n" + "".join(f"{line}\n" for line in lines))


@pytest.mark.parametrize(
    ("name", "line", "unit"),
    [
        ("mail.service", f"ExecStart={SERVE} --config FILE", "mail"),
        ("mail.service", f"ExecStart={SERVE} --config=FILE", "mail"),
        ("mail.service", "ExecStart=/opt/bin/dmarc-milter --config FILE serve", "mail"),
        ("mail.service", f"ExecStart={SERVE} \\\n  --config FILE", "mail"),
        ("mail.service", f'Environment="DMARC_MILTER_CONFIG=FILE"\nExecStart={SERVE}', "mail"),
        ("mail.service", f"ExecStart={SERVE}\nEnvironment=A=b DMARC_MILTER_CONFIG=FILE", "mail"),
        ("mail@two.service", f"ExecStart={SERVE} --config FILE", "mail@two"),
        ("mail.service", "Environment=DMARC_MILTER_CONFIG=FILE", ""),
        ("mail.service.d/a.conf", f"ExecStart={SERVE} --config FILE", ""),
        (
            "mail.service",
            f"Environment=DMARC_MILTER_CONFIG=FILE\nExecStart={SERVE} --config FILE.other",
            "",
        ),
        ("mail.service", f"ExecStart={SERVE} --config FILE\nExecStart=\nExecStart=/bin/true", ""),
        ("mail.service", f"ExecStart={SERVE} --config FILE.other", ""),
        ("mail.service", f"#ExecStart={SERVE} --config FILE", ""),
        ("web.service", "ExecStart=/usr/bin/dmarc-milter web --config FILE", ""),
        ("dmarc-milter@.service", f"ExecStart={SERVE} --config /etc/dmarc-milter-%i/x", ""),
        ("mail.service", f"ExecStart={SERVE} --config", ""),
    ],
)
def test_the_unit_that_names_a_file_is_its_own(
    units: Path, file: Path, name: str, line: str, unit: str
) -> None:
    write(units, name, line.replace("FILE", str(file)))
    assert instance.instance(file).unit == unit


NAMES = "Environment=DMARC_MILTER_CONFIG=FILE"


@pytest.mark.parametrize(
    ("drop_ins", "unit"),
    [
        ({"dmarc-milter-drain": NAMES, "dmarc-milter": NAMES, "aa-drain": NAMES}, "dmarc-milter"),
        ({"dmarc-milter-drain": NAMES, "dmarc-milter-report": NAMES}, ""),
        ({"dmarc-milter-drain": NAMES, "aa-drain": NAMES, "aa": NAMES}, "aa"),
        ({"dmarc-": NAMES}, "dmarc-milter"),
        ({"": NAMES}, "aa"),
        ({"dmarc-milter@two": f"ExecStart=\nExecStart={SERVE} --config FILE"}, "dmarc-milter@two"),
        ({"dmarc-milter@two": NAMES}, ""),  # its `--config` counts
        ({"dmarc-milter": f"ExecStart=\nExecStart={SERVE} --config=FILE"}, "dmarc-milter"),
        ({"dmarc-milter-web": "ExecStart=\nExecStart=/bin/dmarc-milter web --config FILE"}, ""),
    ],
)
def test_a_companion_is_not_the_daemon(
    units: Path,
    file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    drop_ins: dict[str, str],
    unit: str,
) -> None:
    """The drain, the reports and the dashboard need the name too: a reload of one of them leaves
    the daemon with its old policy. The units are the package's, the drop-ins the
    administrator's."""
    package = tmp_path / "lib"
    monkeypatch.setattr(instance, "UNIT_FOLDERS", (units, package))
    shutil.copytree(Path(__file__).parents[2] / "systemd", package)
    subprocess.run(["sh", TEMPLATES, package], check=True)
    for name in ("", "-drain"):
        text = (package / f"dmarc-milter{name}.service").read_text()
        (package / f"aa{name}.service").write_text(text)
    for name, lines in drop_ins.items():
        folder = f"{name}.service.d" if name else "service.d"
        write(units, f"{folder}/a.conf", lines.replace("FILE", str(file)))
    assert instance.instance(file).unit == unit


def test_a_unit_of_the_administrator_s_hides_the_package_s(
    units: Path, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a drop-in hides one of the same name."""
    package = tmp_path / "lib"
    package.mkdir()
    monkeypatch.setattr(instance, "UNIT_FOLDERS", (units, package))
    write(package, "mail.service", f"ExecStart={SERVE}")
    write(package, "mail.service.d/a.conf", f"Environment=DMARC_MILTER_CONFIG={file}")
    assert instance.instance(file).unit == "mail"
    write(units, "mail.service.d/a.conf", "Environment=DMARC_MILTER_CONFIG=/srv/other")
    assert instance.instance(file).unit == ""
    (units / "mail.service.d/a.conf").unlink()
    (units / "mail.service").symlink_to("/dev/null")
    assert instance.instance(file).unit == ""


def test_a_link_to_the_file_is_the_file(units: Path, file: Path, tmp_path: Path) -> None:
    (tmp_path / "link.toml").symlink_to(file)
    write(units, "mail.service", f"ExecStart={SERVE} --config {tmp_path}/link.toml")
    assert instance.instance(file).unit == "mail"


def test_the_usual_files_have_the_usual_units(units: Path) -> None:
    """Whatever other units there are."""
    write(units, "mail.service", f"ExecStart={SERVE} --config /srv/x.toml")
    second = Path("/etc/dmarc-milter-second/dmarc-milter.toml")
    assert instance.instance(DEFAULT_PATH).unit == "dmarc-milter"
    assert instance.instance(second).unit == "dmarc-milter@second"


def test_without_a_unit_no_service_is_touched(units: Path, file: Path) -> None:
    """What `systemctl` would do to another instance is said in words or by our own command."""
    of = instance.instance(file)
    assert service.start(of) == "dmarc-milter serve"
    assert "systemctl" not in service.then_restart(of)
    assert service.drop_in("LimitNOFILE=1", (units,), of=of) == ""
    words = "dmarc-milter setup --apply && systemctl restart dmarc-milter && postfix reload"
    said = remedies.placed(words, config=file)
    assert "systemctl" not in said
    assert said.endswith("&& postfix reload  # start the daemon again")
    assert remedies.placed("systemctl start dmarc-milter", config=file) == (
        f"dmarc-milter --config {file} serve"
    )


@pytest.mark.parametrize(
    ("remedy", "said"),
    [
        ("systemctl restart dmarc-milter", "# start the daemon again"),
        ("systemctl reload dmarc-milter && postfix reload", "# ... again, then `postfix reload`"),
        ("systemctl start dmarc-milter && postfix reload", "# ... again, then `postfix reload`"),
        (
            "systemctl reload dmarc-milter && dmarc-milter config check",
            "# ... again, then `dmarc-milter --config FILE config check`",
        ),
        ("echo; systemctl restart dmarc-milter", "echo  # ... again"),
        ("systemctl enable --now dmarc-milter", "dmarc-milter --config FILE serve"),
        ("systemctl start dmarc-milter  # why", "dmarc-milter --config FILE serve  # why"),
        ("systemctl restart dmarc-milter-web", "systemctl restart dmarc-milter-web"),
    ],
)
def test_no_second_daemon_is_started_beside_one_that_runs(
    units: Path, file: Path, remedy: str, said: str
) -> None:
    """`dmarc-milter serve` never ends: a command behind it would not be reached."""
    wanted = said.replace("...", "start the daemon").replace("FILE", str(file))
    assert remedies.placed(remedy, config=file) == wanted


def test_a_closed_socket_of_a_daemon_without_a_unit(
    units: Path, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No `systemctl restart` with nothing behind it."""
    path = tmp_path / "s"
    monkeypatch.setattr(account, "_may", lambda *_: False)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        path.chmod(0o600)
        mta = pwd.getpwuid(os.geteuid())
        (found,) = account._closed_socket(mta, path, instance.instance(file))
        assert remedies.placed(found.remedy, config=file) == "# start the daemon again"
        write(units, "mail.service", f"ExecStart={SERVE} --config {file}")
        (found,) = account._closed_socket(mta, path, instance.instance(file))
        assert remedies.placed(found.remedy, config=file) == "systemctl restart mail"


def test_the_unit_of_a_file_elsewhere_is_named(units: Path, file: Path) -> None:
    write(units, "mail.service", f"ExecStart={SERVE} --config {file}")
    assert remedies.placed("systemctl start dmarc-milter", config=file) == "systemctl start mail"
    assert service.then_restart(instance.instance(file)) == " && systemctl restart mail"
    assert service.drop_in("LimitNOFILE=1", (units,), of=instance.instance(file)).endswith(
        "systemctl restart mail"
    )


def test_config_set_says_how_the_change_comes_into_force(
    units: Path, file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def said() -> str:
        assert main(["config", "set", "policy.enforce", "true", "--config", str(file)]) == 0
        return capsys.readouterr().out.splitlines()[-1]

    assert said() == "No daemon runs here with this configuration: it is read at the next start."
    monkeypatch.setattr(daemons, "pids", lambda: iter([77]))
    monkeypatch.setattr(daemons, "serves", lambda pid, config: True)
    monkeypatch.setattr(daemons, "parent", lambda pid: 1)
    assert re.search(r"kill -HUP 77\b", said())
    write(units, "mail.service", f"ExecStart={SERVE} --config {file}")
    assert "systemctl reload mail" in said()
    assert running.to_apply(DEFAULT_PATH).startswith("To apply it: systemctl reload dmarc-milter")
