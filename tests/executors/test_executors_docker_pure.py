"""The pure parts of the docker executor: the Engine's JSON, its log bytes; and a machine without an engine."""

from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from swarm.executors.base import (
    ExecutorContext,
    ExecutorError,
    ExecutorUnavailable,
    LogLine,
    Stream,
    TemporaryError,
    Workload,
)
from swarm.executors.docker import factory
from swarm.executors.docker.config import container_config, volumes_to_make
from swarm.executors.docker.demux import LINE_BYTES_MAX, Demultiplexer, format_time, parse_time, split_time
from swarm.executors.docker.engine import Engine
from swarm.executors.docker.events import parse_event
from swarm.executors.docker.images import last_error, parse_auth
from swarm.executors.registry import installed, open_executors
from swarm.model.ids import Instant, NodeId, RevisionNumber, ServiceId, Slot, TaskId
from swarm.model.specs import (
    ContainerSpec,
    GenericResource,
    HealthCheck,
    LogDriver,
    Mount,
    Port,
    ResourceRequirements,
    Resources,
    ServiceSpec,
    TaskSpec,
)
from swarm.model.states import MountType, NetworkMode, Protocol, PublishMode
from swarm.ports.clock import SystemClock
from swarm.ports.entropy import SystemEntropy

IDS = TaskId("t1"), ServiceId("s1"), RevisionNumber(4), Slot(2), NodeId("n1")


def config(spec: ContainerSpec, **more: Any) -> Any:
    resources = more.pop("resources", ResourceRequirements())
    task = TaskSpec(spec, resources, log_driver=more.pop("log_driver", None))
    generic = (GenericResource("gpu", 2, ("a", "b")), GenericResource("slot", 3))
    return container_config(Workload(*IDS, "here", ServiceSpec("web", task, **more), generic), spec)


def test_least_container() -> None:
    found = config(ContainerSpec("nginx"))
    assert found == {
        "Image": "nginx",
        "Env": ["DOCKER_RESOURCE_GPU=a,b", "DOCKER_RESOURCE_SLOT=3"],
        "Labels": {
            "swarm.task.id": "t1",
            "swarm.task.name": "web.2.t1",
            "swarm.node.id": "n1",
            "swarm.service.id": "s1",
            "swarm.service.name": "web",
            "swarm.service.revision": "4",
        },
        "Tty": False,
        "OpenStdin": False,
        "HostConfig": {"RestartPolicy": {"Name": "no"}, "NetworkMode": "default"},
    }


def test_every_field() -> None:
    spec = ContainerSpec(
        "nginx",
        command=("run",),
        args=("a", "b"),
        env=("A=1", "B"),
        dir="/srv",
        user="www:www",
        groups=("audio",),
        hostname="box",
        labels={"mine": "1", "swarm.task.id": "forged"},
        mounts=(
            Mount("/data", "vol", labels={"l": "1"}, driver="nfs", driver_options={"o": "v"}, options=("nocopy",)),
            Mount("/etc/x", "/host/x", MountType.BIND, read_only=True, options=("rslave",)),
            Mount("/tmp", type=MountType.TMPFS, tmpfs_size_bytes=1 << 20, tmpfs_mode=0o1777, options=("exec",)),
        ),
        stop_signal="SIGINT",
        tty=True,
        open_stdin=True,
        read_only=True,
        init=True,
        hosts=("10.0.0.1 db db.local", "cache:10.0.0.2", "v6:fe80::1"),
        cap_add=("NET_ADMIN",),
        cap_drop=("ALL",),
        sysctls={"net.core.somaxconn": "1024"},
        ulimits=("nofile=100:200", "core=-1"),
        health=HealthCheck(("CMD", "true"), 1.5, 2, 3, 4),
    )
    found = config(
        spec,
        resources=ResourceRequirements(Resources(1_500_000_000, 64 << 20), pids_limit=9),
        log_driver=LogDriver("json-file", {"max-size": "1m"}),
        ports=(
            Port(80, 8080),
            Port(80, 8081),
            Port(53, 0, Protocol.UDP),
            Port(443, 443, mode=PublishMode.INGRESS),
        ),
    )
    assert found["Entrypoint"] == ["run"]
    assert found["Cmd"] == ["a", "b"]
    assert found["Env"][-2:] == ["A=1", "B"]
    assert (found["WorkingDir"], found["User"], found["Hostname"]) == ("/srv", "www:www", "box")
    assert found["Labels"]["mine"] == "1"
    assert found["Labels"]["swarm.task.id"] == "t1"
    assert found["StopSignal"] == "SIGINT"
    assert found["Tty"] is found["OpenStdin"] is True
    assert found["ExposedPorts"] == {"80/tcp": {}, "53/udp": {}}
    assert found["Healthcheck"] == {
        "Test": ["CMD", "true"],
        "Interval": 1_500_000_000,
        "Timeout": 2_000_000_000,
        "Retries": 3,
        "StartPeriod": 4_000_000_000,
    }
    assert found["HostConfig"] == {
        "RestartPolicy": {"Name": "no"},
        "NetworkMode": "default",
        "Memory": 64 << 20,
        "CpuPeriod": 100_000,
        "CpuQuota": 150_000,
        "PidsLimit": 9,
        "ReadonlyRootfs": True,
        "Init": True,
        "GroupAdd": ["audio"],
        "CapAdd": ["NET_ADMIN"],
        "CapDrop": ["ALL"],
        "Ulimits": [{"Name": "nofile", "Soft": 100, "Hard": 200}, {"Name": "core", "Soft": -1, "Hard": -1}],
        "ExtraHosts": ["db:10.0.0.1", "db.local:10.0.0.1", "cache:10.0.0.2", "v6:fe80::1"],
        "Mounts": [
            {
                "Type": "volume",
                "Source": "vol",
                "Target": "/data",
                "ReadOnly": False,
                "VolumeOptions": {
                    "Labels": {"l": "1"},
                    "NoCopy": True,
                    "DriverConfig": {"Name": "nfs", "Options": {"o": "v"}},
                },
            },
            {
                "Type": "bind",
                "Source": "/host/x",
                "Target": "/etc/x",
                "ReadOnly": True,
                "BindOptions": {"Propagation": "rslave"},
            },
        ],
        "Tmpfs": {"/tmp": "exec,size=1048576,mode=1777"},
        "Sysctls": {"net.core.somaxconn": "1024"},
        "PortBindings": {"80/tcp": [{"HostPort": "8080"}, {"HostPort": "8081"}], "53/udp": [{"HostPort": ""}]},
        "LogConfig": {"Type": "json-file", "Config": {"max-size": "1m"}},
    }
    assert volumes_to_make(spec) == [spec.mounts[0]]


def test_host_network_binds_no_ports() -> None:
    found = config(ContainerSpec("nginx", network=NetworkMode.HOST), ports=(Port(80, 80),))
    assert found["HostConfig"]["NetworkMode"] == "host"
    assert "PortBindings" not in found["HostConfig"]


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (ContainerSpec(""), "no image"),
        (ContainerSpec("x", ulimits=("nofile",)), "ulimit 'nofile'"),
        (ContainerSpec("x", ulimits=("nofile=a",)), "ulimit 'nofile=a'"),
        (ContainerSpec("x", hosts=("alone",)), "host entry 'alone'"),
        (ContainerSpec("x", hosts=("",)), "host entry ''"),
        (ContainerSpec("x", mounts=(Mount("relative", "v"),)), "mount target 'relative'"),
        (ContainerSpec("x", mounts=(Mount("/t", "rel", MountType.BIND),)), "absolute path as its source"),
        (ContainerSpec("x", mounts=(Mount("/t", "/s", MountType.BIND, options=("nocopy",)),)), "'nocopy' for a bind"),
        (ContainerSpec("x", mounts=(Mount("/t", "v", options=("z",)),)), "'z' for a volume"),
        (ContainerSpec("x", mounts=(Mount("/t", "/s", MountType.TMPFS),)), "tmpfs has no source"),
        (ContainerSpec("x", mounts=(Mount("/t", type=MountType.TMPFS, options=("suid",)),)), "'suid' for a tmpfs"),
    ],
)
def test_refusals_name_the_field(spec: ContainerSpec, words: str) -> None:
    with pytest.raises(ExecutorError, match=words):
        config(spec)


# --- the log endpoint's bytes -------------------------------------------------------------------------------------------
TIME = "2026-11-21T04:02:21.708285879Z"
SECONDS = 1795233741.708285879


def frame(stream: Stream, data: bytes) -> bytes:
    return struct.pack(">BxxxL", 1 if stream is Stream.STDOUT else 2, len(data)) + data


def test_times() -> None:
    assert parse_time(TIME) == pytest.approx(SECONDS, abs=1e-6)
    assert parse_time("2026-11-21T04:02:21Z") == int(SECONDS)
    assert parse_time("2026-11-21T06:02:21.5+02:00") == int(SECONDS) + 0.5
    assert split_time(b"no time here") == (0.0, b"no time here")
    assert split_time(f"{TIME} ".encode()) == (pytest.approx(SECONDS), b"")
    assert format_time(Instant(1.25)) == "1.250000000"
    assert format_time(Instant(-1)) == "0.000000000"


@given(st.lists(st.tuples(st.sampled_from(Stream), st.binary(max_size=30)), max_size=12), st.integers(1, 40))
def test_frames_in_any_pieces(writes: list[tuple[Stream, bytes]], size: int) -> None:
    stamped = [(stream, data.replace(b"\n", b"x")) for stream, data in writes]
    raw = b"".join(frame(stream, TIME.encode() + b" " + data + b"\n") for stream, data in stamped)
    demultiplexer = Demultiplexer(tty=False)
    found: list[LogLine] = []
    for start in range(0, len(raw), size):
        found += demultiplexer.feed(raw[start : start + size])
    found += demultiplexer.end()
    assert [(line.stream, line.data) for line in found] == stamped


def test_lines_across_frames_and_a_last_one_without_end() -> None:
    demultiplexer = Demultiplexer(tty=False)
    chunk = frame(Stream.STDOUT, f"{TIME} on".encode()) + frame(Stream.STDERR, f"{TIME} e\n".encode())
    assert [line.data for line in demultiplexer.feed(chunk)] == [b"e"]
    assert [line.data for line in demultiplexer.feed(frame(Stream.STDOUT, f"e\n{TIME} two".encode()))] == [b"one"]
    assert [line.data for line in demultiplexer.end()] == [b"two"]
    assert list(demultiplexer.end()) == []


def test_terminal_is_one_stream_with_carriage_returns() -> None:
    found = list(Demultiplexer(tty=True).feed(f"{TIME} one\r\n{TIME} two\r\n".encode()))
    assert [(line.stream, line.data) for line in found] == [(Stream.STDOUT, b"one"), (Stream.STDOUT, b"two")]


def test_endless_line_is_handed_out_in_pieces() -> None:
    demultiplexer = Demultiplexer(tty=True)
    assert sum(len(list(demultiplexer.feed(b"x" * LINE_BYTES_MAX))) for _ in range(4)) == 2


# --- images, and no engine ----------------------------------------------------------------------------------------------
def test_pull_progress() -> None:
    assert last_error([{"status": "Pulling"}, {"status": "Done"}]) == ""
    assert last_error([{"status": "x"}, {"error": "no such manifest", "errorDetail": {}}]) == "no such manifest"


def test_credentials() -> None:
    assert parse_auth("") is None
    assert parse_auth("eyJ1c2VybmFtZSI6ICJhIn0=") == {"username": "a"}
    for bad in ("%%%", "bm8=", "WzFd"):
        with pytest.raises(ExecutorError, match="credentials"):
            parse_auth(bad)


def context(tmp_path: Path, **env: str) -> ExecutorContext:
    return ExecutorContext(str(tmp_path), SystemClock(), SystemEntropy(), NodeId("n"), "here", env)


def test_no_engine_is_said_with_what_to_do(tmp_path: Path) -> None:
    absent = context(tmp_path, DOCKER_HOST=f"unix://{tmp_path}/none.sock")
    with pytest.raises(ExecutorUnavailable, match="no such socket; install and start one"):
        factory(absent)
    with pytest.raises(ExecutorUnavailable, match="refused"):
        factory(context(tmp_path, DOCKER_HOST="tcp://127.0.0.1:9"))
    with pytest.raises(ExecutorUnavailable, match="neither unix"):
        factory(context(tmp_path, DOCKER_HOST="bogus"))
    found = open_executors(absent)
    assert set(found.usable) == {"process"}
    assert found.named("process") is found.usable["process"]
    assert "no Docker Engine answers" in found.unavailable["docker"]
    with pytest.raises(ExecutorUnavailable, match="executor 'docker' cannot be used on this machine: no Docker"):
        open_executors(absent, ["docker"])
    with pytest.raises(ExecutorUnavailable, match="there is no executor 'podman'; installed: docker, process"):
        open_executors(absent, ["podman"])
    assert set(installed()) >= {"docker", "process"}


async def test_engine_that_went_away_is_temporary(tmp_path: Path) -> None:
    engine = Engine({"DOCKER_HOST": f"unix://{tmp_path}/none.sock"})
    with pytest.raises(TemporaryError, match=r"does not answer \(there is no such socket\); .*systemctl status docker"):
        await engine.call(lambda api: api.info())


def test_node_without_engine_does_not_load_the_sdk(tmp_path: Path) -> None:
    script = f"""
import sys
from swarm.executors.base import ExecutorContext
from swarm.executors.registry import open_executors
open_executors(ExecutorContext({str(tmp_path)!r}, None, None, "n", "h", {{"DOCKER_HOST": "unix:///none"}}))
print(sorted(name for name in sys.modules if name in ("docker", "requests", "urllib3")))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_workload_of_the_default_slot() -> None:
    spec = ContainerSpec("x")
    workload = evolve(Workload(*IDS, "here", ServiceSpec("web", TaskSpec(spec))), slot=Slot(0))
    labels = container_config(workload, spec)["Labels"]
    assert isinstance(labels, dict)
    assert labels["swarm.task.name"] == "web.n1.t1"


@pytest.mark.parametrize("line", [b"", b"[]", b'{"Type": "conta', b"\xff\xfe"])
def test_what_is_no_event_is_a_temporary_failure(line: bytes) -> None:
    with pytest.raises(TemporaryError, match="among its events"):
        parse_event(line)
