"""The supervisor, its workers and libmilter as processes: deaths, hangs, reload, drain, start and
its refusals."""

from __future__ import annotations

import os
import re
import signal
import socket
import stat
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.daemon import Daemon, wait_for
from fakes.milter_client import Answer, Gone, MilterClient

SCRIPTED = ("-m", "fakes.scripted_service")
IPV6 = Path("/proc/net/if_inet6")
with_ipv6 = pytest.mark.skipif(
    not IPV6.exists() or not IPV6.read_text(), reason="this machine has no IPv6, not even ::1"
)


def scripted(folder: Path, tables: dict[str, dict[str, object]] | None = None) -> Daemon:
    """The real processes with an handler that obeys X-Script."""
    return Daemon(folder, tables, command=SCRIPTED)


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    with scripted(tmp_path) as running:
        yield running


def ask(
    mta: MilterClient, script: str = "pid", message_id: str = "m", *, body: bytes = b"x\r\n"
) -> Answer:
    return mta.message([("Message-ID", f" <{message_id}>"), ("X-Script", f" {script}")], body)


def opened(daemon: Daemon) -> MilterClient:
    mta = daemon.client()
    answer = mta.connect("client.example", "192.0.2.1")
    if answer is not None and answer.code == 451:
        raise Gone("there is no room")
    mta.helo("client.example")
    return mta


def in_message(daemon: Daemon) -> MilterClient:
    mta = opened(daemon)
    mta.mail("<a@client.example>")
    mta.rcpt("<b@test.example>")
    mta.data()
    mta.eoh()
    mta.body(b"x\r\n")
    return mta


def worker_of(answer: Answer) -> int:
    return int(answer.values("X-Answer")[0].split()[0])


def sessions_on_both(daemon: Daemon) -> tuple[MilterClient, int, MilterClient, int]:
    """Two sessions served by different workers. Libmilter's workers race for each connection, and
    one that has the machine for itself wins for a while."""
    first = opened(daemon)
    one = worker_of(ask(first))
    until = time.monotonic() + 30
    while time.monotonic() < until:
        several = [opened(daemon) for _ in range(8)]
        served = [worker_of(ask(each)) for each in several]
        found = next((place for place, other in enumerate(served) if other != one), None)
        for place, each in enumerate(several):
            if place != found:
                each.close()
        if found is not None:
            return first, one, several[found], served[found]
    raise AssertionError("only one worker takes connections")


def test_connections_of_a_quiet_moment_are_shared_among_the_workers(tmp_path: Path) -> None:
    """MTAs connect one after the other, and nobody has anything to do: the kernel would wake the
    same worker first each time."""
    served: Counter[int] = Counter()
    with scripted(tmp_path, {"milter": {"library": "native"}}) as daemon:
        for _ in range(200):
            served[worker_of(ask(opened(daemon)))] += 1
            if len(served) == 2 and min(served.values()) >= 8:
                break
    assert len(served) == 2
    assert min(served.values()) >= 8


def restarted(daemon: Daemon, dead: int) -> bool:
    workers = daemon.workers()
    return len(workers) == 2 and dead not in workers


# -- deaths ----------------------------------------------------------------------------------------


def test_a_killed_worker_is_replaced_and_others_are_untouched(daemon: Daemon) -> None:
    """FLT-01, FLT-09: its sessions are dropped (the MTA answers 4xx), the other worker's go on; a
    new one is there within a second."""
    first, one, second, _ = sessions_on_both(daemon)
    os.kill(one, signal.SIGKILL)
    assert wait_for(lambda: restarted(daemon, one), 1.0)
    with pytest.raises(Gone):
        ask(first)
    assert ask(second).code == 250
    assert ask(opened(daemon)).code == 250
    assert daemon.events("worker_died")


@pytest.mark.parametrize("stage", ["connect", "header", "body", "eom"])
def test_a_worker_killed_at_any_stage_never_accepts(daemon: Daemon, stage: str) -> None:
    """FLT-01: at CONNECT, HEADER, BODY and EOM the client loses the connection instead of getting
    an answer."""
    mta = opened(daemon)
    worker = worker_of(ask(mta))
    if stage != "connect":
        mta.mail("<a@b.example>")
        mta.rcpt("<v@example.com>")
        mta.header("X-Script", " slow 5")
    if stage in ("body", "eom"):
        mta.eoh()
        mta.body(b"x" * 1000)
    if stage == "eom":
        mta.send("E")
        time.sleep(0.2)
    os.kill(worker, signal.SIGKILL)
    with pytest.raises(Gone):
        (mta.reply if stage == "eom" else mta.eom)()
    assert wait_for(lambda: restarted(daemon, worker), 1.0)
    assert ask(opened(daemon)).code == 250


def test_a_worker_that_passes_the_deadline_is_killed(tmp_path: Path) -> None:
    """An evaluation that never ends takes its worker down, and no other worker's sessions."""
    with scripted(tmp_path, {"milter": {"deadline": 1.0}}) as daemon:
        for script in ("hang", "freeze"):
            first, one, second, _ = sessions_on_both(daemon)
            slow = threading.Thread(target=ask, args=(second, "slow 0.5"))
            slow.start()
            with pytest.raises(Gone):
                ask(first, script, message_id=script)
            slow.join()
            assert ask(second).code == 250
            assert wait_for(lambda one=one: restarted(daemon, one), 1.0)  # type: ignore[misc]
        assert all(
            "an evaluation took more than 1 s" in line for line in daemon.events("worker_died")
        )


def test_a_stopped_worker_is_killed(tmp_path: Path) -> None:
    """FLT-04: a worker that shows no sign of life is replaced even when it evaluates nothing."""
    with scripted(tmp_path, {"milter": {"deadline": 1.0}}) as daemon:
        victim = daemon.workers()[0]
        os.kill(victim, signal.SIGSTOP)
        assert wait_for(lambda: restarted(daemon, victim), 6.0)
        assert "no sign of life" in daemon.events("worker_died")[0]


def test_a_pause_of_everything_kills_nobody(tmp_path: Path) -> None:
    """FLT-04: after a pause of the whole machine the workers are alive, not hung."""
    with scripted(tmp_path, {"milter": {"deadline": 1.0}}) as daemon:
        assert daemon.process is not None
        mta = opened(daemon)
        before = daemon.workers()
        everyone = [daemon.process.pid, *before]
        for pid in everyone:
            os.kill(pid, signal.SIGSTOP)
        time.sleep(4)
        for pid in everyone:
            os.kill(pid, signal.SIGCONT)
        assert ask(mta).code == 250
        time.sleep(0.5)
        assert daemon.workers() == before
        assert daemon.events("worker_died") == []


def test_a_message_that_killed_twice_is_not_evaluated_again(daemon: Daemon) -> None:
    """Its fingerprint is remembered over the deaths and known to every worker, old or new; other
    messages are not concerned."""
    for _ in range(2):
        with pytest.raises(Gone):
            ask(opened(daemon), "crash", message_id="poisonous")
        assert ask(opened(daemon), "pid", message_id="harmless").code == 250
    assert wait_for(lambda: len(daemon.events("worker_died")) == 2)
    assert wait_for(lambda: len(daemon.workers()) == 2)
    for _ in range(6):
        assert (
            ask(opened(daemon), "crash", message_id="poisonous")
            .values("X-Answer")[0]
            .startswith(" poison")
        )
    assert worker_of(ask(opened(daemon), message_id="harmless")) in daemon.workers()


def test_a_dead_supervisor_leaves_no_workers(daemon: Daemon) -> None:
    """They see the end of their orders, finish and go."""
    workers = daemon.workers()
    assert daemon.process is not None
    daemon.process.kill()
    daemon.process.wait()
    assert wait_for(
        lambda: not any(Path(f"/proc/{pid}").exists() and _alive(pid) for pid in workers), 5.0
    )


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


# -- stopping --------------------------------------------------------------------------------------


def test_sigterm_lets_a_message_in_flight_finish(daemon: Daemon) -> None:
    """FLT-02: no new connection is taken, the message in flight gets its answer, the exit code is
    0."""
    assert daemon.process is not None
    mta = opened(daemon)
    answers: list[Answer] = []
    message = threading.Thread(target=lambda: answers.append(ask(mta, "slow 1.5")))
    message.start()
    time.sleep(0.3)
    daemon.signal(signal.SIGTERM)
    time.sleep(0.5)
    with pytest.raises((ConnectionError, TimeoutError)):
        opened(daemon)
    message.join()
    assert answers[0].code == 250
    mta.close()
    assert daemon.process.wait(5) == 0
    assert daemon.events("stopped")


def test_sigterm_waits_no_longer_than_configured(tmp_path: Path) -> None:
    """FLT-02: what is still there after the drain time is cut off, which the MTA answers 451."""
    with scripted(tmp_path, {"milter": {"drain": 1.0}}) as daemon:
        assert daemon.process is not None
        mta = opened(daemon)
        daemon.signal(signal.SIGTERM)
        assert daemon.process.wait(5) == 0
        with pytest.raises(Gone):
            ask(mta)


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2]
)
def test_signals_to_a_worker_change_nothing(daemon: Daemon, number: signal.Signals) -> None:
    """systemd and terminals signal the whole group: the supervisor alone decides, and libmilter's
    own handling never sees them."""
    mta = opened(daemon)
    before = daemon.workers()
    for _ in range(20):
        for pid in before:
            os.kill(pid, number)
    time.sleep(0.3)
    assert ask(mta).code == 250
    assert ask(opened(daemon)).code == 250
    assert daemon.workers() == before


def test_a_second_sigterm_stops_at_once(daemon: Daemon) -> None:
    """FLT-02, with a drain time of 30 s and a session open."""
    assert daemon.process is not None
    mta = opened(daemon)
    workers = daemon.workers()
    daemon.signal(signal.SIGTERM)
    time.sleep(0.5)
    assert daemon.process.poll() is None
    daemon.signal(signal.SIGTERM)
    assert daemon.process.wait(2) == 0
    assert not any(_alive(pid) for pid in workers)
    mta.close()


# -- reload ----------------------------------------------------------------------------------------


def marks(answer: Answer) -> str:
    found = re.search(r"mark=(\S+)", answer.values("X-Answer")[0])
    assert found is not None
    return found[1]


def test_reload_replaces_the_workers_and_drops_nothing(daemon: Daemon) -> None:
    """FLT-03: under load every message is answered; sessions that were open go on with the worker
    they have."""
    before = daemon.workers()
    held = opened(daemon)
    failures: list[BaseException] = []
    stop = threading.Event()

    def load() -> None:
        while not stop.is_set():
            try:
                with opened(daemon) as mta:
                    assert ask(mta).code == 250
                    mta.quit()
            except BaseException as error:
                failures.append(error)
                return

    threads = [threading.Thread(target=load) for _ in range(3)]
    for each in threads:
        each.start()
    for number in range(3):
        daemon.configure({"authentication": {"authserv_id": f"new{number}.example.com"}})
        daemon.signal(signal.SIGHUP)
        assert daemon.logged("ready", number + 2)
    stop.set()
    for each in threads:
        each.join()
    assert failures == []
    assert marks(ask(opened(daemon))) == "new2.example.com"
    assert marks(ask(held)) == "mx.example.com"
    held.quit()
    held.close()
    assert wait_for(lambda: not set(before) & set(daemon.workers()), 10.0)
    assert daemon.events("worker_died") == []


def test_reload_during_a_message_keeps_it(daemon: Daemon) -> None:
    """FLT-03: SIGHUP during EOM."""
    mta = opened(daemon)
    answers: list[Answer] = []
    message = threading.Thread(target=lambda: answers.append(ask(mta, "slow 1.5")))
    message.start()
    time.sleep(0.3)
    daemon.signal(signal.SIGHUP)
    message.join()
    assert answers[0].code == 250


def test_a_bad_file_keeps_the_running_configuration(daemon: Daemon) -> None:
    """OPS-03: the mistake is logged with file and line, the workers stay."""
    before = daemon.workers()
    daemon.config.write_text("[milter]\nsokket = 1\n")
    daemon.signal(signal.SIGHUP)
    assert wait_for(lambda: bool(daemon.events("reload_failed")))
    assert "dmarc-milter.toml:2" in daemon.events("reload_failed")[0]
    assert daemon.workers() == before
    assert marks(ask(opened(daemon))) == "mx.example.com"


def test_reload_may_change_socket_and_workers(daemon: Daemon) -> None:
    """The new socket serves, the old one refuses, and the number of workers follows the file."""
    old = daemon.address
    path = daemon.folder / "milter.sock"
    daemon.configure({"milter": {"socket": f"unix:{path}", "workers": 3}})
    daemon.signal(signal.SIGHUP)
    assert wait_for(lambda: len(daemon.events("ready")) == 2)
    assert ask(opened(daemon)).code == 250
    assert wait_for(lambda: len(daemon.workers()) == 3, 10.0)
    assert wait_for(lambda: not _listens(old))


def test_a_reload_keeps_a_socket_that_is_only_spelled_differently(daemon: Daemon) -> None:
    """To open the same address a second time would fail, and with it the reload."""
    assert isinstance(daemon.address, tuple)
    daemon.configure({"milter": {"socket": f"inet:{daemon.address[1]}"}})
    daemon.signal(signal.SIGHUP)
    assert wait_for(lambda: len(daemon.events("ready")) == 2)
    assert daemon.events("reload_failed") == []
    assert ask(opened(daemon)).code == 250


@pytest.mark.parametrize("kind", ["inet", "unix"])
def test_a_reload_may_go_back_to_the_socket_that_it_has_just_left(
    tmp_path: Path, kind: str
) -> None:
    """The administrator sees the mistake at once; the old socket is still ours for some seconds and
    would count as in use."""
    paths = {"milter": {"socket": f"unix:{tmp_path}/one"}} if kind == "unix" else {}
    with scripted(tmp_path, paths) as daemon:
        right = daemon.address
        daemon.configure({"milter": {"socket": f"unix:{tmp_path}/mistake"}})
        daemon.signal(signal.SIGHUP)
        assert daemon.logged("ready", 2)
        daemon.configure(paths)
        daemon.signal(signal.SIGHUP)
        assert daemon.logged("ready", 3), daemon.text()
        daemon.address = right
        assert ask(opened(daemon)).code == 250
        assert wait_for(lambda: not (tmp_path / "mistake").exists())
        assert ask(opened(daemon)).code == 250


@pytest.mark.parametrize("first", ["slow.example.com", "slow.unbuildable.example.com"])
def test_a_second_reload_that_fails_returns_to_what_served_before_the_first(
    daemon: Daemon, first: str
) -> None:
    """FLT-03: the workers of the first had not even started, and whether they ever would nobody
    knows."""
    before = daemon.workers()
    for number, name in enumerate((first, "unbuildable.example.com")):
        daemon.configure({"authentication": {"authserv_id": name}})
        daemon.signal(signal.SIGHUP)
        assert daemon.logged("reload", number + 1)
    assert wait_for(lambda: bool(daemon.events("reload_failed")))
    os.kill(before[0], signal.SIGKILL)
    assert wait_for(
        lambda: len(set(daemon.workers()) - set(before)) == 1 and len(daemon.workers()) == 2
    )
    first, _, second, _ = sessions_on_both(daemon)
    assert {marks(ask(first)), marks(ask(second))} == {"mx.example.com"}


def test_a_reload_names_the_keys_that_need_a_restart(daemon: Daemon) -> None:
    """user, and mode and group of a socket that stays open, are taken at the start; more workers
    than were made room for, then too."""
    path = daemon.folder / "s"
    tables = {"milter": {"socket": f"unix:{path}", "socket_mode": "0660"}}
    files: list[dict[str, object]] = [
        {},  # another socket: mode and group are applied
        {
            "socket_mode": "0600",
            "socket_group": "nogroup",
            "user": "nobody",
            "workers": 100,
            "drain": 3.0,
        },
        {"drain": 3.0},
    ]
    for number, changed in enumerate(files):
        daemon.configure({"milter": tables["milter"] | {"workers": 2} | changed})
        daemon.signal(signal.SIGHUP)
        assert daemon.logged("reload", number + 1)
    assert wait_for(lambda: len(daemon.events("reload")) == 3)
    (line,) = daemon.events("restart_needed")
    assert "level=warning" in line
    for key in ("socket_mode", "socket_group", "user", "workers"):
        assert f"[milter] {key}" in line
    assert "drain" not in line
    assert stat.S_IMODE(path.stat().st_mode) == 0o660


def _listens(address: tuple[str, int] | str) -> bool:
    try:
        MilterClient(address).close()
    except ConnectionError:
        return False
    return True


def test_a_replaced_unix_socket_leaves_no_path(daemon: Daemon) -> None:
    """From one path to another and back to inet: what is not served any more is gone."""
    paths = [daemon.folder / "one", daemon.folder / "two"]
    for number, path in enumerate(paths):
        daemon.configure({"milter": {"socket": f"unix:{path}"}})
        daemon.signal(signal.SIGHUP)
        assert daemon.logged("ready", number + 2)
        assert ask(opened(daemon)).code == 250
    assert wait_for(lambda: not paths[0].exists())
    assert paths[1].exists()


def test_workers_that_do_not_start_end_a_reload(daemon: Daemon) -> None:
    """The running configuration and its socket stay, whatever the new file wanted."""
    before, address = daemon.workers(), daemon.address
    path = daemon.folder / "new"
    daemon.configure(
        {
            "milter": {"socket": f"unix:{path}"},
            "authentication": {"authserv_id": "unbuildable.example.com"},
        }
    )
    daemon.address = address
    daemon.signal(signal.SIGHUP)
    assert wait_for(lambda: bool(daemon.events("reload_failed")))
    assert "as the configuration wanted" in daemon.events("reload_failed")[0]
    assert marks(ask(opened(daemon))) == "mx.example.com"
    assert set(before) <= set(daemon.workers())
    assert wait_for(lambda: not path.exists())
    victim = before[0]
    os.kill(victim, signal.SIGKILL)
    assert wait_for(lambda: restarted(daemon, victim), 2.0)
    assert marks(ask(opened(daemon))) == "mx.example.com"


def test_workers_that_cannot_start_stop_the_start(tmp_path: Path) -> None:
    """One line with the worker's own reason, exit code 1."""
    code, lines = refused_start(
        scripted(tmp_path, {"authentication": {"authserv_id": "unbuildable.example.com"}})
    )
    assert code == 1
    assert lines[-1].endswith('text="as the configuration wanted"')


def test_a_socket_that_cannot_be_had_keeps_the_old_one(daemon: Daemon) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        daemon.configure({"milter": {"socket": f"inet:{other.getsockname()[1]}@127.0.0.1"}})
        daemon.signal(signal.SIGHUP)
        assert wait_for(lambda: bool(daemon.events("reload_failed")))
    assert ask(opened(daemon)).code == 250


# -- starting --------------------------------------------------------------------------------------


def refused_start(daemon: Daemon) -> tuple[int, list[str]]:
    """Exit code and what was printed."""
    code = daemon.spawn().wait(20)
    return code, daemon.lines()


def test_an_address_in_use_is_one_line(tmp_path: Path) -> None:
    """The start fails with what and why, and an exit code other than 0."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        code, lines = refused_start(
            scripted(tmp_path, {"milter": {"socket": f"inet:{port}@127.0.0.1"}})
        )
    assert code == 1
    (line,) = lines
    assert line.endswith(
        f'text="cannot listen on inet:{port}@127.0.0.1: Address already in use; `ss -ltnp'
        f' sport = :{port}` shows who"'
    )


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("[milter]\nworker = 2\n", "workers"),
        ("[milter\n", "TOML"),
        ('[milter]\nsocket = "tcp:1"\n', "allowed"),
    ],
)
def test_a_bad_configuration_stops_the_start(tmp_path: Path, text: str, hint: str) -> None:
    """Exit code 2 and one line with file, key and what is allowed."""
    daemon = Daemon(tmp_path)
    daemon.config.write_text(text)
    code, lines = refused_start(daemon)
    assert code == 2
    assert len(lines) == 1
    assert str(daemon.config) in lines[0]
    assert hint in lines[0]


@pytest.mark.parametrize(
    ("table", "key", "value"),
    [
        ("milter", "user", "nobody-of-that-name"),
        ("milter", "socket_group", "no-group-of-that-name"),
        ("dmarc", "suffix_list", "/nowhere"),
    ],
)
def test_a_name_in_the_configuration_that_means_nothing_here_stops_the_start(
    tmp_path: Path, table: str, key: str, value: str
) -> None:
    """It is the configuration that is wrong: exit code 2, and one line with key and name."""
    code, lines = refused_start(
        Daemon(
            tmp_path,
            {
                table: (
                    {"socket": f"unix:{tmp_path}/s", key: value}
                    if table == "milter"
                    else {key: value}
                )
            },
        )
    )
    assert (code, len(lines)) == (2, 1)
    assert f"[{table}] {key}" in lines[0]
    assert value in lines[0]


@pytest.mark.parametrize("place", ["file", "link", "live"])
def test_a_path_that_is_not_a_dead_socket_is_left_alone(tmp_path: Path, place: str) -> None:
    """OPS-02: a file, a symbolic link or a socket with somebody behind it is never removed."""
    path = tmp_path / "s"
    if place == "file":
        path.write_text("precious")
    elif place == "link":
        path.symlink_to(tmp_path / "elsewhere")
    with socket.socket(socket.AF_UNIX) as other:
        if place == "live":
            other.bind(str(path))
            other.listen()
        code, lines = refused_start(scripted(tmp_path, {"milter": {"socket": f"unix:{path}"}}))
        assert (code, len(lines)) == (1, 1)
        assert os.path.lexists(path)


def test_a_unix_socket_has_its_mode_and_is_cleared_away(tmp_path: Path) -> None:
    """A stale socket of a killed daemon does not block the start; a clean stop leaves none
    behind."""
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    with scripted(
        tmp_path, {"milter": {"socket": f"unix:{path}", "socket_mode": "0622"}}
    ) as daemon:
        assert daemon.process is not None
        assert stat.S_IMODE(path.stat().st_mode) == 0o622
        with opened(daemon) as mta:
            assert ask(mta).code == 250
        victim = daemon.workers()[0]
        os.kill(victim, signal.SIGKILL)
        assert wait_for(lambda: restarted(daemon, victim), 1.0)
        assert path.exists()
        daemon.signal(signal.SIGTERM)
        assert daemon.process.wait(10) == 0
        assert not path.exists()


def test_a_passed_socket_is_served(tmp_path: Path) -> None:
    """fd:3, as systemd passes it (sd_listen_fds(3))."""
    daemon = scripted(tmp_path, {"milter": {"socket": "fd:3"}})
    with socket.create_server(("127.0.0.1", 0)) as listening:
        daemon.address = listening.getsockname()
        saved = os.dup(listening.fileno())
        wrapper = (
            f"import os, sys; os.dup2({saved}, 3); os.execv(sys.executable, [sys.executable,"
            " *sys.argv[1:]])"
        )
        daemon.command = ("-c", wrapper, *SCRIPTED)
        os.set_inheritable(saved, True)
        daemon.pass_fds = (saved,)
        with daemon:
            assert ask(opened(daemon)).code == 250


@with_ipv6
def test_inet6_is_served(tmp_path: Path) -> None:
    daemon = scripted(tmp_path)
    daemon.configure({"milter": {"socket": f"inet6:{daemon.port}@::1"}})
    daemon.address = ("::1", daemon.port)
    with daemon:
        assert ask(opened(daemon)).code == 250


def test_readiness_is_told_to_the_service_manager(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """sd_notify: READY after the workers serve, RELOADING and READY on SIGHUP, STOPPING on
    SIGTERM."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(10)
        daemon = scripted(tmp_path)
        daemon.environment = {"NOTIFY_SOCKET": str(tmp_path / "notify")}
        said: list[str] = []

        def hear(word: str) -> bool:
            while not any(line.startswith(word) for line in said):
                said.extend(manager.recv(4096).decode().split("\n"))
            said.clear()
            return True

        with daemon:
            assert hear("READY=1")
            daemon.signal(signal.SIGHUP)
            assert hear("RELOADING=1")
            assert hear("READY=1")
            daemon.signal(signal.SIGTERM)
            assert hear("STOPPING=1")


def test_connections_beyond_the_limit_are_turned_away(tmp_path: Path) -> None:
    """The MTA then does as its default action says; room comes back when others leave. (Silent
    ones: test_silence.py.)"""
    with scripted(tmp_path, {"milter": {"workers": 1, "max_connections": 3}}) as daemon:
        held = [in_message(daemon) for _ in range(3)]
        with pytest.raises(Gone):
            opened(daemon)
        held.pop().close()
        assert wait_for(lambda: _served(daemon))


FEW_DESCRIPTORS = """
import resource, runpy
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
runpy.run_module("fakes.scripted_service", run_name="__main__")
"""


def test_few_descriptors_mean_few_connections(tmp_path: Path) -> None:
    """FLT-06: with 64 descriptors the rest is turned away, no worker dies or spins, and all is well
    afterwards."""
    with Daemon(tmp_path, {"milter": {"workers": 1}}, command=("-c", FEW_DESCRIPTORS)) as daemon:
        turned_away = 0
        for _ in range(100):
            try:
                in_message(daemon)
            except Gone:
                turned_away += 1
        assert 60 < turned_away < 100
        (worker,) = daemon.workers()
        before = _cpu_seconds(worker)
        time.sleep(1)
        assert _cpu_seconds(worker) - before < 0.5
        for client in daemon.clients:
            client.close()
        assert wait_for(lambda: _served(daemon))
        assert daemon.workers() == [worker]


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _served(daemon: Daemon) -> bool:
    try:
        return ask(opened(daemon)).code == 250
    except Gone:
        return False


WITHOUT_FD = """
import runpy
from Milter import milter
known = milter.setconn

def setconn(place):
    if place.startswith("fd:"):
        raise milter.error("cannot set connection")
    return known(place)

milter.setconn = setconn
runpy.run_module("fakes.scripted_service", run_name="__main__")
"""


@pytest.mark.parametrize("family", ["inet", pytest.param("inet6", marks=with_ipv6), "unix"])
def test_a_libmilter_without_fd_serves_our_socket_too(tmp_path: Path, family: str) -> None:
    """Only Debian's and Fedora's know `fd:`: elsewhere ours is put in the place of one that
    libmilter opened; drain works alike."""
    daemon = Daemon(tmp_path, command=("-c", WITHOUT_FD))
    path = tmp_path / "s"
    text = {
        "inet": f"inet:{daemon.port}@127.0.0.1",
        "inet6": f"inet6:{daemon.port}@::1",
        "unix": f"unix:{path}",
    }[family]
    daemon.configure({"milter": {"socket": text}})
    daemon.address = {"inet": daemon.address, "inet6": ("::1", daemon.port), "unix": str(path)}[
        family
    ]
    with daemon:
        assert daemon.process is not None
        first, one, _, _ = sessions_on_both(daemon)
        os.kill(one, signal.SIGKILL)
        assert wait_for(lambda: restarted(daemon, one), 1.0)
        with pytest.raises(Gone):
            ask(first)
        daemon.signal(signal.SIGHUP)
        assert wait_for(lambda: len(daemon.events("ready")) == 2)
        assert ask(opened(daemon)).code == 250
        for client in daemon.clients:
            client.close()
        daemon.signal(signal.SIGTERM)
        assert daemon.process.wait(15) == 0
        assert not path.exists()
