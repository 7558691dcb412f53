"""The units: how exposed they are, and the installed package under a real systemd, hardened as it
is, with a message through it."""

from __future__ import annotations

import os
import re
import resource
import shutil
import signal
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.daemon import free_port, toml, wait_for
from fakes.dns_server import DnsServer
from fakes.milter_client import Answer, MilterClient
from live.machine import DROP_IN, Machine, private_machine
from live.package import build_deb
from live.place import REPOSITORY, give_up, within
from live.scenarios import AUTHSERV_ID, zone

pytestmark = [pytest.mark.live, pytest.mark.slow, pytest.mark.timeout(600)]

UNITS = REPOSITORY / "systemd"
EXPOSURE = 1.5


@pytest.mark.parametrize("unit", sorted(UNITS.glob("*.service")), ids=lambda path: path.name)
def test_a_service_is_exposed_at_most_so_far(unit: Path) -> None:
    """systemd's own measure: 0 is nothing, 10 a service of root's without any restriction."""
    give_up("" if shutil.which("systemd-analyze") else "systemd-analyze is needed")
    command = [
        "systemd-analyze",
        "security",
        "--offline=true",
        f"--threshold={EXPOSURE * 10:.0f}",
        str(unit),
    ]
    done = subprocess.run(command, capture_output=True, check=False, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", done.stdout)
    assert found is not None
    assert float(found[1]) <= EXPOSURE


def test_the_services_are_hardened_alike() -> None:
    """One that is weaker would be the way in."""
    hard = {
        path.name: (
            path.read_text().partition("# Nothing of the system but")[2].partition("\n[Install]")[0]
        )
        for path in UNITS.glob("*.service")
    }
    assert len(hard) == 5
    assert all(text.rstrip() == hard["dmarc-milter.service"].rstrip() for text in hard.values())


def test_a_report_job_that_breaks_is_a_failed_unit() -> None:
    """A defect ends with 1, which must not count as success; 75 is something left for a later
    run."""
    unit = (UNITS / "dmarc-milter-report.service").read_text()
    assert re.findall(r"^SuccessExitStatus=(.*)$", unit, re.MULTILINE) == ["75"]


# -- a machine of its own --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def dns() -> Iterator[DnsServer]:
    with DnsServer(zone()) as server:
        yield server


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    with private_machine(build_deb()) as running:
        yield running


MAIN = "/etc/dmarc-milter/dmarc-milter.toml"


def configure(
    machine: Machine, dns: DnsServer, socket: str, *, web: int = 8894, file: str = MAIN
) -> None:
    tables: dict[str, dict[str, object]] = {
        "milter": {"socket": socket, "workers": 1},
        "authentication": {"authserv_id": AUTHSERV_ID, "trusted_networks": []},
        "dns": {"nameservers": [dns.nameserver]},
        "web": {"listen": f"127.0.0.1:{web}"},
    }
    if file != MAIN:
        tables["store"] = {"url": f"sqlite:////var/lib/{Path(file).parent.name}/reports.db"}
    machine.write(file, toml(tables))


def judged(address: tuple[str, int] | str) -> Answer:
    """A spoofed message of a domain with p=reject."""
    with MilterClient(address) as mta:
        mta.negotiate()
        mta.connect("host.forwarder.example", "203.0.113.66")
        mta.helo("host.forwarder.example")
        return mta.message(
            [("From", "Alice <alice@sender.example>")], mail_from="<alice@sender.example>"
        )


def status(pid: str) -> dict[str, str]:
    """/proc/PID/status as a table."""
    rows = (line.partition(":") for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return {name: value.strip() for name, _, value in rows}


def members(machine: Machine, unit: str) -> list[str]:
    """The unit's processes, by their numbers outside."""
    inside = machine.enter(
        "sh", "-c", f"cat /sys/fs/cgroup/system.slice/{unit}/cgroup.procs"
    ).split()
    return [
        path.name for path in Path("/proc").glob("[0-9]*") if _number_in(path, machine) in inside
    ]


def _number_in(path: Path, machine: Machine) -> str:
    """The process's number in the machine; "" for those outside."""
    try:
        if (path / "ns/pid").readlink() != Path(f"/proc/{machine.pid}/ns/pid").readlink():
            return ""
        return status(path.name)["NSpid"].split()[-1]
    except OSError:
        return ""


def test_the_hardened_service_serves_a_message(machine: Machine, dns: DnsServer) -> None:
    """Installed by dpkg with its dependencies there, started by systemd with READY=1, refused what
    the policy refuses, recorded it."""
    port = free_port()
    configure(machine, dns, f"inet:{port}@127.0.0.1")
    machine.systemctl("start", "dmarc-milter.service")
    assert judged(("127.0.0.1", port)).code == 550, machine.text()
    assert machine.systemctl("is-active", "dmarc-milter-drain.service").strip() == "active"
    assert "serving on" in machine.systemctl(
        "show", "--property=StatusText", "dmarc-milter.service"
    )
    assert wait_for(
        lambda: (
            '"messages":1,' in machine.enter("dmarc-milter", "stats", "--json").replace(" ", "")
        ),
        20,
    ), machine.text()


def test_every_process_of_it_is_shut_in(machine: Machine, dns: DnsServer) -> None:
    """Seccomp filter, no privileges to gain, no capabilities, not root."""
    configure(machine, dns, f"inet:{free_port()}@127.0.0.1")
    machine.systemctl("start", "dmarc-milter.service")  # nothing where it runs already
    pids = members(machine, "dmarc-milter.service")
    assert len(pids) >= 2
    for pid in pids:
        found = status(pid)
        assert (
            found["Seccomp"],
            found["NoNewPrivs"],
            int(found["CapBnd"], 16),
            int(found["CapEff"], 16),
        ) == ("2", "1", 0, 0)
        assert "0" not in found["Uid"].split()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    wanted = (
        65536 if hard == resource.RLIM_INFINITY else min(65536, hard)
    )  # no more than the tests' own machine allows
    limits = Path(f"/proc/{pids[0]}/limits").read_text()
    assert re.search(rf"^Max open files +{wanted} +{wanted} ", limits, re.MULTILINE), limits


def test_a_worker_that_the_kernel_kills_takes_nobody_with_it(
    machine: Machine, dns: DnsServer
) -> None:
    """FLT-17: where memory ends the kernel sends SIGKILL to one process; with OOMPolicy=continue
    systemd does not stop the service for it, and the supervisor replaces the worker."""
    port = free_port()
    configure(machine, dns, f"inet:{port}@127.0.0.1")
    machine.systemctl("restart", "dmarc-milter.service")
    unit = "dmarc-milter.service"

    def shown(name: str) -> str:
        return machine.systemctl("show", "--value", f"--property={name}", unit).strip()

    assert (shown("OOMPolicy"), shown("TasksMax")) == ("continue", "16384")
    before, supervisor = shown("InvocationID"), shown("MainPID")
    names = {pid: Path(f"/proc/{pid}/comm").read_text().strip() for pid in members(machine, unit)}
    (worker,) = [pid for pid, name in names.items() if name == "dmarc-worker"]
    os.kill(int(worker), signal.SIGKILL)
    assert judged(("127.0.0.1", port)).code == 550, machine.text()
    assert (shown("InvocationID"), shown("MainPID")) == (before, supervisor)
    assert shown("ActiveState") == "active"


def test_a_reload_takes_the_new_configuration_and_keeps_serving(
    machine: Machine, dns: DnsServer
) -> None:
    """`systemctl reload` is SIGHUP; the drain takes it by a new process."""
    configure(machine, dns, f"inet:{free_port()}@127.0.0.1")
    machine.systemctl("start", "dmarc-milter.service")  # nothing where it runs already
    port = free_port()
    configure(machine, dns, f"inet:{port}@127.0.0.1")
    machine.systemctl("reload", "dmarc-milter.service")

    def moved() -> bool:
        try:
            return judged(("127.0.0.1", port)).code == 550
        except OSError:
            return False

    assert wait_for(moved, 20), machine.text()
    assert machine.systemctl("is-active", "dmarc-milter.service").strip() == "active"


def test_a_reload_of_a_file_that_is_refused_fails_and_says_why(
    machine: Machine, dns: DnsServer
) -> None:
    """Nothing is signalled: the daemon and the drain go on with what they have."""
    port = free_port()
    configure(machine, dns, f"inet:{port}@127.0.0.1")
    machine.systemctl("restart", "dmarc-milter.service")
    before = members(machine, "dmarc-milter.service")
    drain = machine.systemctl("show", "--property=MainPID", "dmarc-milter-drain.service")
    machine.write(MAIN, '[policy]\nenforce = "maybe"\n')
    code = machine.enter("sh", "-c", "systemctl reload dmarc-milter.service; echo code $?")
    assert "code 0" not in code
    assert wait_for(lambda: "must be true or false" in machine.text())
    assert members(machine, "dmarc-milter.service") == before
    is_active = ("is-active", "dmarc-milter-drain.service")  # "reloading" while its file is read
    assert wait_for(lambda: machine.systemctl(*is_active).strip() == "active")
    assert machine.systemctl("show", "--property=MainPID", "dmarc-milter-drain.service") == drain
    assert judged(("127.0.0.1", port)).code == 550
    configure(machine, dns, f"inet:{port}@127.0.0.1")
    machine.systemctl("reload", "dmarc-milter.service")


def test_reports_and_the_dashboard_run_under_their_units(machine: Machine, dns: DnsServer) -> None:
    """The report job ends well although reporting is off; the dashboard answers."""
    web = free_port()
    configure(machine, dns, f"inet:{free_port()}@127.0.0.1", web=web)
    machine.systemctl("start", "dmarc-milter-report.service")
    assert "reporting is off" in machine.text()
    machine.systemctl("start", "dmarc-milter-web.service")

    def answers() -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{web}/", timeout=10) as reply:
                return reply.status == 200
        except OSError:
            return False

    assert wait_for(answers, 30), machine.text()
    machine.systemctl("stop", "dmarc-milter-web.service")


def test_a_socket_of_systemd_is_the_mta_s_way_in(machine: Machine, dns: DnsServer) -> None:
    """`socket = "fd:3"`: systemd made it, with the group that it was told; the first connection
    starts the daemon."""
    machine.systemctl("stop", "dmarc-milter.service")
    configure(machine, dns, "fd:3")
    machine.systemctl("start", "dmarc-milter.socket")
    path = machine.path("/run/dmarc-milter.sock")
    assert path.stat().st_mode & 0o777 == 0o660
    assert judged(str(path)).code == 550, machine.text()
    machine.systemctl("start", "dmarc-milter.service")  # waits until it is ready
    assert machine.systemctl("is-active", "dmarc-milter.service").strip() == "active"
    machine.systemctl("stop", "dmarc-milter.socket", "dmarc-milter.service")


def test_the_unix_socket_that_setup_chooses_works_as_packaged(
    machine: Machine, dns: DnsServer
) -> None:
    """`setup --socket unix --apply` for a chrooted Postfix: the hardened unit may make the socket
    there, and it gets Postfix's group and no other."""
    configure(machine, dns, f"inet:{free_port()}@127.0.0.1")
    machine.write("/etc/postfix/main.cf", "compatibility_level = 3.6\n")
    machine.write("/etc/postfix/master.cf", "smtp inet n - y - - smtpd\n")
    machine.path("/var/spool/postfix").mkdir(parents=True, exist_ok=True)
    command = ("dmarc-milter", "setup", "--mta", "postfix", "--socket", "unix", "--apply")
    said = machine.enter(*command)
    assert "error:" not in said
    assert "may not write" not in said
    machine.systemctl("start", "dmarc-milter.service")
    path = machine.path("/var/spool/postfix/dmarc-milter/milter.sock")
    group = machine.enter("id", "-g", "postfix").strip()
    assert (str(path.stat().st_gid), path.stat().st_mode & 0o777) == (group, 0o660)
    assert judged(str(path)).code == 550, machine.text()
    doctor = machine.enter("dmarc-milter", "doctor", check=False)
    assert "fail   socket" not in doctor, doctor
    assert "fail   postfix" not in doctor, doctor


def test_a_second_instance_by_the_templates_keeps_its_own_store(
    machine: Machine, dns: DnsServer
) -> None:
    """docs/how-to/several-instances.md: its drain, its spool and its folders are its own."""
    for unit in ("dmarc-milter", "dmarc-milter-drain"):
        machine.write(f"/etc/systemd/system/{unit}@.service.d/test.conf", DROP_IN)
    machine.systemctl("daemon-reload")
    port, file = free_port(), "/etc/dmarc-milter-second/dmarc-milter.toml"
    configure(machine, dns, f"inet:{port}@127.0.0.1", file=file)
    machine.enter("chgrp", "-R", "dmarc-milter", "/etc/dmarc-milter-second")
    machine.systemctl("start", "dmarc-milter@second.service")
    assert judged(("127.0.0.1", port)).code == 550, machine.text()
    stats = ("dmarc-milter", "--config", file, "stats", "--json")
    assert wait_for(lambda: '"messages":1,' in machine.enter(*stats).replace(" ", ""), 30)
    named = machine.systemctl("show", "--property=StateDirectory", "dmarc-milter@second.service")
    assert named.strip() == "StateDirectory=dmarc-milter-second"
    machine.systemctl("stop", "dmarc-milter@second.service")
    drain = machine.systemctl("is-active", "dmarc-milter-drain@second.service", check=False)
    assert drain.strip() != "active"


def test_a_socket_of_systemd_comes_back_with_the_package(machine: Machine, dns: DnsServer) -> None:
    """docs/how-to/install.md, Remove it: with `fd:3` nobody is there to ask while the socket is
    not, whatever the service does. tests/tools/test_maintainer_scripts.py has the other units."""
    configure(machine, dns, "fd:3")
    machine.path("/usr/sbin/policy-rc.d").unlink(missing_ok=True)
    machine.systemctl("disable", "dmarc-milter-report.timer")  # wants more of a system than is here
    machine.systemctl("enable", "dmarc-milter.socket")
    machine.enter("dpkg", "--remove", "dmarc-milter")
    path = machine.path("/run/dmarc-milter.sock")
    assert not path.exists()
    machine.enter("sh", "-c", "dpkg --force-confold --install /run/dmarc-milter_*.deb")
    assert judged(str(path)).code == 550, machine.text()
    machine.systemctl("disable", "--now", "dmarc-milter.socket")


def test_stopping_is_quick_and_clean(machine: Machine) -> None:
    """SIGTERM with no session in flight; the drain goes with it."""
    units = ("dmarc-milter.service",)
    assert within(30, lambda: machine.systemctl("stop", *units))
    assert "Result=success" in machine.systemctl(
        "show", "--property=Result", "dmarc-milter.service"
    )
    assert (
        machine.systemctl("is-active", "dmarc-milter-drain.service", check=False).strip()
        == "inactive"
    )
