"""`ready`: what the health check of a container asks of the daemon beside it."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest

from dmarc_milter.cli.main import main
from fakes.daemon import Daemon, free_port, wait_for
from fakes.dns_server import DnsServer


def ready(config: Path) -> int:
    return main(["ready", "--config", str(config)])


def test_a_daemon_that_serves_is_ready_and_one_that_is_gone_is_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What listens on every address is asked on this machine."""
    with DnsServer({"example.org": {}}) as dns:
        daemon = Daemon(
            tmp_path,
            {
                "dns": {"nameservers": [dns.nameserver]},
                "metrics": {"listen": f"0.0.0.0:{free_port()}"},
                "milter": {"workers": 1},
            },
        )
        with daemon:
            assert wait_for(lambda: ready(daemon.config) == 0, 60), daemon.text()
            assert capsys.readouterr().out.endswith("ready\n")
    assert ready(daemon.config) == 1
    assert "no answer from [metrics] listen" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("answer", "code", "shown"),
    [
        (b"HTTP/1.0 200 OK\r\n\r\nready\n", 0, "ready"),
        (b"HTTP/1.0 503 No\r\n\r\nno worker serves\n", 1, "no worker serves"),
        (b"220 mx.example.org ESMTP\r\n", 1, "no answer from [metrics] listen"),
        (b"", 1, "no answer from [metrics] listen"),
        (b"HTTP/1.0 503 No\r\n\r\n\x1b[2J" + b"x" * 9999, 1, "\\x1b[2Jxxx"),
    ],
    ids=["ready", "not ready", "another protocol", "hangs up", "hostile"],
)
def test_whatever_answers_the_answer_is_one_line(
    tmp_path: Path,
    answer: bytes,
    code: int,
    shown: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Over a UNIX socket, with a server that answers thus."""
    config = tmp_path / "dm.toml"
    config.write_text(f'[metrics]\nlisten = "unix:{tmp_path}/page"\n')
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"{tmp_path}/page")
        server.listen()
        thread = threading.Thread(target=answer_once, args=(server, answer))
        thread.start()
        assert ready(config) == code
        thread.join()
    out = capsys.readouterr().out
    assert shown in out
    assert out.count("\n") == 1
    assert len(out) < 500


def answer_once(server: socket.socket, answer: bytes) -> None:
    connection, _ = server.accept()
    with connection:
        connection.recv(65536)
        connection.sendall(answer)


def test_without_a_page_to_ask_it_says_what_to_set(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "dm.toml"
    config.write_text("")
    assert ready(config) == 2
    assert "[metrics] listen is empty" in capsys.readouterr().err
