"""The Containerfile and the compose files, as far as they can be judged without an engine; `make
container-check` builds and starts them."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from dmarc_milter.config import Config, load
from fakes.daemon import Daemon, wait_for
from fakes.dns_server import DnsServer

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "packaging/container"
CONTAINERFILE = ROOT / "Containerfile"
COMPOSE = sorted(FOLDER.glob("compose*.yaml"))
FORBIDDEN = ("curl", "wget", "sudo", "gcc")


def instructions(file: Path) -> list[tuple[str, str]]:
    """(instruction, what stands behind it), continuation lines put together."""
    text = re.sub(r"^#.*\n", "", file.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    return [(line.split()[0], line.split(None, 1)[1]) for line in text.splitlines() if line.strip()]


def last(name: str) -> str:
    return [what for each, what in instructions(CONTAINERFILE) if each == name][-1]


def services() -> list[tuple[str, dict[str, Any]]]:
    """Those that run our image, of every compose file."""
    found = []
    for file in COMPOSE:
        for name, service in yaml.safe_load(file.read_text())["services"].items():
            if service.get("image") == "dmarc-milter":
                found.append((f"{file.name} {name}", service))
    return found


def test_the_image_is_made_in_two_stages_and_runs_as_a_number_that_is_not_root() -> None:
    """Kubernetes' runAsNonRoot believes a number only."""
    stages = [what for each, what in instructions(CONTAINERFILE) if each == "FROM"]
    assert len(stages) == 2
    assert stages[0].endswith(" AS build")
    assert re.fullmatch(r"[1-9]\d+:[1-9]\d+", last("USER"))
    final = CONTAINERFILE.read_text().rpartition("\nFROM ")[2]
    assert not [word for word in FORBIDDEN if word in final]
    assert "--from=build" in final
    assert "pip install" not in final


def test_what_the_containerfile_copies_is_there_and_is_sent_to_the_engine() -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    for each, what in instructions(CONTAINERFILE):
        if each == "COPY" and "--from" not in what:
            for name in what.split()[:-1]:
                assert (ROOT / name).exists(), name
                assert any(f"!{kept}" in ignored for kept in (name, str(Path(name).parent))), name


def test_the_secrets_of_the_example_stay_where_they_are() -> None:
    """Neither to the engine, nor under version control, nor into the package's documents."""
    assert "packaging/container/secrets" in (ROOT / ".dockerignore").read_text().splitlines()
    assert "/packaging/container/secrets/" in (ROOT / ".gitignore").read_text().splitlines()
    assert 'ignore_patterns("secrets")' in (ROOT / "tools/documents.py").read_text()


def test_the_image_keeps_its_state_in_a_volume_and_is_asked_for_its_health() -> None:
    assert last("VOLUME") == "/var/lib/dmarc-milter"
    assert last("STOPSIGNAL") == "SIGTERM"
    assert last("HEALTHCHECK").endswith('CMD ["dmarc-milter", "ready"]')


def test_the_image_s_configuration_listens_for_other_containers(tmp_path: Path) -> None:
    """And has the page that the health check asks."""
    config = load(FOLDER / "dmarc-milter.toml", {})
    assert config.milter.socket == "inet:8893@0.0.0.0"
    assert config.metrics.listen
    assert config.store.url.startswith("sqlite:////var/lib/dmarc-milter/")


@pytest.mark.parametrize("file", COMPOSE, ids=lambda file: file.name)
def test_a_compose_file_names_only_what_it_defines(file: Path) -> None:
    """Volumes, secrets, other services, build folders."""
    document = yaml.safe_load(file.read_text())
    for name, service in document["services"].items():
        for volume in service.get("volumes", []):
            source = volume.partition(":")[0]
            known = source in document["volumes"] or (FOLDER / source).exists()
            assert known, f"{name}: {source}"
        assert set(service.get("secrets", [])) <= set(document.get("secrets", {})), name
        assert set(service.get("depends_on", {})) <= set(document["services"]), name
        if "build" in service:
            context = FOLDER / service["build"]["context"]
            assert (context / service["build"]["dockerfile"]).exists(), name


@pytest.mark.parametrize(("name", "service"), services(), ids=lambda value: str(value)[:40])
def test_the_settings_of_a_compose_file_are_ours(name: str, service: dict[str, Any]) -> None:
    """Each variable is a key, its value TOML; and the container may write nothing but its
    volume."""
    config = from_environment(service["environment"])
    assert config.authentication.authserv_id == "mx.example.org"
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert int(service["stop_grace_period"].rstrip("s")) > config.milter.drain


def from_environment(environment: dict[str, str]) -> Config:
    return load(FOLDER / "dmarc-milter.toml", environment)


def test_the_variables_of_the_document_are_settings() -> None:
    """docs/how-to/container.md"""
    text = (ROOT / "docs/how-to/container.md").read_text()
    shown = re.findall(r"(DMARC_MILTER__[A-Z_]+)=('[^']*'|\S+)", text)
    assert len(shown) >= 5
    for name, value in shown:
        from_environment({name: value.strip("'")})


def test_a_first_process_that_is_told_to_stop_while_it_starts_stops(tmp_path: Path) -> None:
    """A signal that process 1 does not handle is lost to it; the image's entry point keeps it."""
    with (
        DnsServer({"example.org": {}}) as dns,
        as_first_process(
            Daemon(tmp_path, {"dns": {"nameservers": [dns.nameserver]}, "milter": {"workers": 1}}),
            "serve",
            "--no-jobs",
        ) as process,
    ):
        os.kill(first_process(process), signal.SIGTERM)
        assert process.wait(60) == 0


@pytest.mark.parametrize("command", ["web --listen 127.0.0.1:0", "store drain --follow"])
def test_every_command_that_runs_on_ends_when_its_container_is_stopped(
    tmp_path: Path, command: str
) -> None:
    """Not only `serve` obeys the signal that the entry point holds back."""
    with as_first_process(Daemon(tmp_path), *command.split()) as process:
        os.kill(first_process(process), signal.SIGTERM)
        assert process.wait(60) in (0, 128 + signal.SIGTERM)


@contextmanager
def as_first_process(daemon: Daemon, *command: str) -> Iterator[subprocess.Popen[bytes]]:
    """The command behind the image's entry point, in a process namespace of its own."""
    probe = subprocess.run(["unshare", "--pid", "--fork", "true"], check=False, capture_output=True)
    if probe.returncode:
        pytest.skip("no process namespace of our own is allowed here")
    entry = [shlex.quote(word) for word in yaml.safe_load(last("ENTRYPOINT"))]
    assert entry[-1] == "dmarc-milter"
    words = [*entry[:-1], sys.executable, "-m", "dmarc_milter", *command]
    process = subprocess.Popen(
        ["unshare", "--pid", "--fork", "--kill-child", *words, "--config", daemon.config],
        env=os.environ | {"PYTHONPATH": str(ROOT / "milter")},
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def first_process(process: subprocess.Popen[bytes]) -> int:
    """Process 1 of that namespace, once it is the interpreter."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    assert wait_for(lambda: is_python(children), 60)
    return int(children.read_text())


def is_python(children: Path) -> bool:
    """Whether the entry point has become the interpreter; it has kept signals since before."""
    try:
        first = children.read_text().split()[0]
        return Path(f"/proc/{first}/exe").readlink().name.startswith("python")
    except (OSError, IndexError):
        return False
