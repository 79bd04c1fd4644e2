"""What only containers have: images, mounts, ports, health, an engine that goes away. A real engine."""

from __future__ import annotations

import gc
import hashlib
import json
import os
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import trio
from attrs import evolve
from test_executors_docker import DockerHarness

from swarm.executors.base import (
    ExecutorError,
    LogOptions,
    Running,
    Stream,
    TaskExited,
    TemporaryError,
    Workload,
)
from swarm.executors.docker import DockerExecutor
from swarm.executors.docker.controller import DockerController
from swarm.executors.docker.engine import Engine
from swarm.executors.docker.output import Pump
from swarm.model.specs import (
    ContainerSpec,
    GenericResource,
    HealthCheck,
    Mount,
    Port,
    ResourceRequirements,
    Resources,
)
from swarm.model.states import MountType, NetworkMode, Protocol

pytestmark = pytest.mark.docker


@pytest.fixture
def harness(busybox_image: str) -> DockerHarness:
    return DockerHarness(busybox_image)


@asynccontextmanager
async def running_executor(executor: DockerExecutor) -> AsyncIterator[DockerExecutor]:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(executor.run)
        yield executor
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def prepared(harness: DockerHarness, workload: Workload) -> AsyncIterator[DockerController]:
    with trio.fail_after(60):
        async with running_executor(harness.executor()) as executor:
            controller = executor.controller(workload)
            try:
                await controller.prepare()
                yield controller
            finally:
                with trio.CancelScope(shield=True):
                    await controller.remove()


@asynccontextmanager
async def started(harness: DockerHarness, workload: Workload) -> AsyncIterator[tuple[DockerController, Running]]:
    async with prepared(harness, workload) as controller:
        yield controller, await controller.start()


def sh(harness: DockerHarness, script: str, **spec: Any) -> ContainerSpec:
    return ContainerSpec(harness.image, command=("sh", "-c", script), stop_grace_s=1, **spec)


async def output(harness: DockerHarness, workload: Workload) -> list[str]:
    async with started(harness, workload) as (controller, _):
        await controller.wait()
        return [line.data.decode() async for line in controller.logs(LogOptions())]


async def inspect(harness: DockerHarness, workload: Workload) -> Any:
    return await trio.to_thread.run_sync(harness.engine.api.inspect_container, workload.name)


# --- the container --------------------------------------------------------------------------------------------------------
async def test_what_the_container_sees(harness: DockerHarness, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("from the host\n")
    tmp_path.chmod(0o755)  # noqa: ASYNC240
    script = """
echo "$A $DOCKER_RESOURCE_GPU"; pwd; id -u; id -G; hostname; cat /bound/file; touch /bound/x 2>&1
touch /scratch/x && /bin/busybox stat -c %a /scratch; grep -c ' /scratch .*size=1024k' /proc/mounts
touch /vol/x 2>&1; touch /y 2>&1; ulimit -n; grep -E 'db|cache' /etc/hosts | sort; cat /proc/1/comm
cat /proc/sys/net/ipv4/ip_unprivileged_port_start"""
    spec = sh(
        harness,
        script,
        env=("A={{.Service.Name}}",),
        dir="/proc",
        user="1234:99",
        groups=("77",),
        hostname="{{.Service.Name}}-{{.Task.Slot}}",
        mounts=(
            Mount("/bound", str(tmp_path), MountType.BIND, read_only=True),
            Mount("/scratch", type=MountType.TMPFS, tmpfs_size_bytes=1 << 20, tmpfs_mode=0o1777),
            Mount("/vol"),
        ),
        read_only=True,
        hosts=("10.0.0.1 db", "cache:10.0.0.2"),
        ulimits=("nofile=123:456",),
        sysctls={"net.ipv4.ip_unprivileged_port_start": "7"},
    )
    workload = evolve(harness.container(spec), generic=(GenericResource("gpu", 1, ("g0",)),))
    found = await output(harness, workload)
    assert found[:5] == ["web g0", "/proc", "1234", "99 77", "web-1"]
    assert found[5] == "from the host"
    assert "Read-only" in found[6]
    assert found[7:9] == ["1777", "1"]
    assert "Permission denied" in found[9]  # an anonymous volume belongs to root
    assert "Read-only" in found[10]
    assert found[11] == "123"
    assert [line.split() for line in found[12:14]] == [["10.0.0.1", "db"], ["10.0.0.2", "cache"]]
    assert found[14:] == ["sh", "7"]


async def test_image_command_is_replaced_or_given_arguments(harness: DockerHarness) -> None:
    assert await output(harness, harness.container(ContainerSpec(harness.image, args=("echo", "only args")))) == [
        "only args"
    ]
    both = ContainerSpec(harness.image, command=("echo",), args=("with", "{{.Task.Slot}}"))
    assert await output(harness, harness.container(both)) == ["with 1"]


async def test_limits_and_capabilities(harness: DockerHarness) -> None:
    spec = sh(harness, "sleep 60", cap_add=("NET_ADMIN",), cap_drop=("CHOWN",), init=True)
    requirements = ResourceRequirements(Resources(500_000_000, 32 << 20), pids_limit=20)
    workload = harness.container(spec, resources=requirements)
    async with prepared(harness, workload):
        host = (await inspect(harness, workload))["HostConfig"]
        assert (host["CpuQuota"], host["CpuPeriod"]) == (50_000, 100_000)
        assert host["Memory"] == 32 << 20
        assert host["PidsLimit"] == 20
        assert host["Init"] is True
        assert [name.removeprefix("CAP_") for name in host["CapAdd"] + host["CapDrop"]] == ["NET_ADMIN", "CHOWN"]


async def test_memory_limit_is_told_from_other_deaths(harness: DockerHarness) -> None:
    script = "tail /dev/zero"
    workload = harness.container(sh(harness, script), resources=ResourceRequirements(Resources(0, 16 << 20)))
    async with started(harness, workload) as (controller, _):
        exit = await controller.wait()
        assert exit.code == 137
        assert "more memory" in exit.detail


async def test_volume_with_a_driver_is_made_and_stays(harness: DockerHarness) -> None:
    name = f"swarm-test-{harness.ids.new()}"
    options = {"type": "tmpfs", "device": "tmpfs", "o": "size=1m"}
    mount = Mount("/vol", name, labels={"slot": "{{.Task.Slot}}"}, driver_options=options)
    api = harness.engine.api
    try:
        assert await output(
            harness, harness.container(sh(harness, "echo x > /vol/x; cat /vol/x", mounts=(mount,)))
        ) == ["x"]
        volume = await trio.to_thread.run_sync(api.inspect_volume, name)
        assert volume["Options"] == options
        assert volume["Labels"] == {"slot": "1"}
    finally:
        await trio.to_thread.run_sync(api.remove_volume, name)


async def test_anonymous_volumes_go_with_the_container(harness: DockerHarness) -> None:
    workload = harness.container(sh(harness, "true", mounts=(Mount("/vol"),)))
    async with started(harness, workload):
        name = (await inspect(harness, workload))["Mounts"][0]["Name"]
    volumes = await trio.to_thread.run_sync(harness.engine.api.volumes)
    assert name not in {volume["Name"] for volume in volumes["Volumes"] or []}


async def test_ports_are_bound_and_reported(harness: DockerHarness) -> None:
    ports = (Port(80), Port(53, 0, Protocol.UDP))
    workload = harness.container(sh(harness, "mkdir /w; echo page > /w/x; httpd -f -p 80 -h /w"), ports=ports)
    async with started(harness, workload) as (controller, running):
        assert [(port.target, port.protocol) for port in running.ports] == [(53, "udp"), (80, "tcp")]
        stream = await trio.open_tcp_stream("127.0.0.1", running.ports[1].published)
        await stream.send_all(b"GET /x HTTP/1.0\r\n\r\n")
        reply = b"".join([part async for part in stream])
        await stream.aclose()
        assert reply.endswith(b"page\n")
        assert (await controller.start()).ports == running.ports


async def test_host_network_reports_the_targets(harness: DockerHarness) -> None:
    spec = sh(harness, "sleep 60", network=NetworkMode.HOST)
    async with started(harness, harness.container(spec, ports=(Port(8080),))) as (_, running):
        assert [(port.target, port.published) for port in running.ports] == [(8080, 8080)]


async def test_port_that_is_taken_is_said(harness: DockerHarness) -> None:
    listeners = await trio.open_tcp_listeners(0, host="0.0.0.0")
    port = listeners[0].socket.getsockname()[1]
    try:
        async with prepared(harness, harness.container(sh(harness, "sleep 60"), ports=(Port(80, port),))) as controller:
            with pytest.raises(ExecutorError, match=str(port)):
                await controller.start()
    finally:
        await listeners[0].aclose()


async def test_stop_signal(harness: DockerHarness) -> None:
    script = "trap 'exit 33' USR1; echo up; while :; do sleep 0.05; done"
    async with started(harness, harness.container(sh(harness, script, stop_signal="SIGUSR1"))) as (controller, _):
        async for line in controller.logs(LogOptions(follow=True)):
            assert line.data == b"up"
            break
        assert (await controller.shutdown()).code == 33


async def test_terminal(harness: DockerHarness) -> None:
    async with started(harness, harness.container(sh(harness, "tty; echo err >&2", tty=True))) as (controller, _):
        await controller.wait()
        lines = [line async for line in controller.logs(LogOptions(tail=5))]
        assert [line.data for line in lines] == [b"/dev/pts/0", b"err"]
        assert {line.stream for line in lines} == {Stream.STDOUT}


async def test_followers_that_walk_away_leave_no_thread(harness: DockerHarness) -> None:
    script = "while :; do echo x; sleep 0.01; done"
    async with started(harness, harness.container(sh(harness, script))) as (controller, _):
        pumps: list[Pump] = []
        for _ in range(5):
            lines = controller.logs(LogOptions(follow=True))
            assert (await anext(lines)).data == b"x"
            assert lines.pump is not None
            pumps.append(lines.pump)
            del lines
        gc.collect()
        with trio.fail_after(5):
            for pump in pumps:
                await pump.ended.wait()
        await controller.shutdown()


async def test_follower_who_came_before_the_start(harness: DockerHarness) -> None:
    async with prepared(harness, harness.container(sh(harness, "echo hello"))) as controller:
        found: list[bytes] = []

        async def follow() -> None:
            async for line in controller.logs(LogOptions(follow=True)):
                found.append(line.data)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(follow)
            await trio.sleep(0.1)
            await controller.start()
        assert found == [b"hello"]


# --- health ---------------------------------------------------------------------------------------------------------------
def probe(test: str, retries: int = 2) -> HealthCheck:
    return HealthCheck(("CMD-SHELL", test), interval_s=0.1, timeout_s=1, retries=retries)


async def test_start_waits_until_healthy(harness: DockerHarness) -> None:
    script = "sleep 0.5; touch /ready; sleep 60"
    async with prepared(
        harness, harness.container(sh(harness, script, health=probe("test -e /ready", 50)))
    ) as controller:
        begin = trio.current_time()
        await controller.start()
        assert trio.current_time() - begin > 0.5
        assert (await controller.start()).pid > 0


async def test_unhealthy_start_is_stopped_and_says_what_the_probe_said(harness: DockerHarness) -> None:
    spec = sh(harness, "sleep 60", health=probe("echo no luck; exit 3"))
    async with prepared(harness, harness.container(spec)) as controller:
        with pytest.raises(TaskExited, match=r"exit code \d, no luck"):
            await controller.start()
        assert (await controller.wait()).code == 137


async def test_end_before_healthy(harness: DockerHarness) -> None:
    spec = sh(harness, "exit 5", health=probe("false", 1000))
    async with prepared(harness, harness.container(spec)) as controller:
        with pytest.raises(TaskExited) as ended:
            await controller.start()
        assert ended.value.exit.code == 5


# --- others on the same engine ----------------------------------------------------------------------------------------------
async def test_two_nodes_share_an_engine(harness: DockerHarness, busybox_image: str) -> None:
    other = DockerHarness(busybox_image)
    workload = harness.container(sh(harness, "sleep 60"))
    async with prepared(harness, workload):
        assert workload.task_id in await harness.executor().known_tasks()
        assert workload.task_id not in await other.executor().known_tasks()


async def test_container_of_somebody_else_with_the_same_name(harness: DockerHarness) -> None:
    workload = harness.container(sh(harness, "sleep 60"))
    api = harness.engine.api
    await trio.to_thread.run_sync(
        lambda: api.create_container_from_config({"Image": harness.image}, workload.name)  # type: ignore[no-untyped-call]
    )
    try:
        with pytest.raises(ExecutorError, match="is not this task's"):
            await harness.executor().controller(workload).prepare()
    finally:
        await trio.to_thread.run_sync(api.remove_container, workload.name)


async def test_container_that_somebody_removes(harness: DockerHarness) -> None:
    workload = harness.container(sh(harness, "sleep 60"))
    async with started(harness, workload) as (controller, _):

        async def remove() -> None:
            await trio.sleep(0.1)
            await trio.to_thread.run_sync(lambda: harness.engine.api.remove_container(workload.name, force=True))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(remove)
            exit = await controller.wait()
        assert exit.code in (None, 137)
        with pytest.raises(ExecutorError, match="gone"):
            await controller.start()


# --- an engine that goes away -----------------------------------------------------------------------------------------------
class Cable:
    """A socket in front of the engine's that can be pulled out."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.is_out = False
        self._scopes: set[trio.CancelScope] = set()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        listening = trio.socket.socket(trio.socket.AF_UNIX, trio.socket.SOCK_STREAM)
        await listening.bind(str(self.path))
        listening.listen(50)
        listener = trio.SocketListener(listening)
        task_status.started()
        await trio.serve_listeners(self._serve, [listener])

    def pull_out(self) -> None:
        self.is_out = True
        for scope in self._scopes:
            scope.cancel()

    async def _serve(self, near: trio.SocketStream) -> None:
        if self.is_out:
            return
        async with near, await trio.open_unix_socket("/var/run/docker.sock") as far:
            with trio.CancelScope() as scope:
                self._scopes.add(scope)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._pass_on, near, far)
                    nursery.start_soon(self._pass_on, far, near)
            self._scopes.discard(scope)

    async def _pass_on(self, source: trio.SocketStream, target: trio.SocketStream) -> None:
        try:
            async for chunk in source:
                await target.send_all(chunk)
            await target.send_eof()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # the SDK drops its sockets unclosed
@pytest.mark.skipif("DOCKER_HOST" in os.environ, reason="the engine is not at the usual socket")
async def test_end_that_happens_while_the_engine_cannot_be_reached(harness: DockerHarness, tmp_path: Path) -> None:
    cable = Cable(tmp_path / "engine.sock")
    workload = harness.container(sh(harness, "sleep 0.6; exit 8"))
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            await nursery.start(cable.run)
            executor = DockerExecutor(Engine({"DOCKER_HOST": f"unix://{cable.path}"}), harness.node_id)
            nursery.start_soon(executor.run)
            controller = executor.controller(workload)
            await controller.prepare()
            await controller.start()

            async def plug_in_later() -> None:
                await trio.sleep(1.5)
                cable.is_out = False

            async with trio.open_nursery() as waiting:
                await trio.sleep(0.2)
                cable.pull_out()
                with pytest.raises(TemporaryError, match="does not answer"):
                    await executor.known_tasks()
                waiting.start_soon(plug_in_later)
                while True:
                    try:
                        exit = await controller.wait()
                    except TemporaryError:
                        await trio.sleep(0.1)
                    else:
                        break
            assert exit.code == 8
            await controller.remove()
            nursery.cancel_scope.cancel()
        gc.collect()


# --- images -----------------------------------------------------------------------------------------------------------------
class Registry:
    """The reading half of the registry protocol, for images that this machine's engine has."""

    def __init__(self) -> None:
        self.blobs: dict[str, tuple[str, bytes]] = {}
        self.manifests: dict[str, tuple[str, bytes]] = {}
        self.requests: list[str] = []
        self.gate = threading.Event()
        self.gate.set()
        registry = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                registry.requests.append(f"{self.command} {self.path}")
                registry.gate.wait(20)
                name = self.path.rpartition("/")[2]
                found = (registry.manifests if "/manifests/" in self.path else registry.blobs).get(name)
                if self.path == "/v2/":
                    found = ("application/json", b"{}")
                kind, body = found or ("application/json", b'{"errors":[{"code":"MANIFEST_UNKNOWN"}]}')
                self.send_response(200 if found else 404)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.send_header("Docker-Content-Digest", digest(body))
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(body)

            do_HEAD = do_GET

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,))

    def add(self, tag: str, layer: bytes) -> None:
        """An image of one uncompressed layer."""
        content: dict[str, Any] = {
            "architecture": "amd64" if os.uname().machine == "x86_64" else "arm64",
            "os": "linux",
            "config": {"Cmd": ["/bin/busybox", "echo", "pulled"]},
            "rootfs": {"type": "layers", "diff_ids": [digest(layer)]},
        }
        config = json.dumps(content).encode()
        self.blobs[digest(config)] = ("application/octet-stream", config)
        self.blobs[digest(layer)] = ("application/octet-stream", layer)
        kind = "application/vnd.docker.distribution.manifest.v2+json"
        manifest = {
            "schemaVersion": 2,
            "mediaType": kind,
            "config": {
                "mediaType": "application/vnd.docker.container.image.v1+json",
                "size": len(config),
                "digest": digest(config),
            },
            "layers": [
                {
                    "mediaType": "application/vnd.docker.image.rootfs.diff.tar",
                    "size": len(layer),
                    "digest": digest(layer),
                }
            ],
        }
        body = json.dumps(manifest).encode()
        self.manifests[tag] = self.manifests[digest(body)] = (kind, body)


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


@pytest.fixture
def registry() -> Iterator[Registry]:
    import io
    import tarfile

    found = Registry()
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        tar.add("/bin/busybox", "bin/busybox")
    found.add("v1", layer.getvalue())
    found.thread.start()
    yield found
    found.gate.set()
    found.server.shutdown()
    found.server.server_close()
    found.thread.join()


async def test_missing_image_is_pulled_once_for_all_who_need_it(harness: DockerHarness, registry: Registry) -> None:
    image = f"127.0.0.1:{registry.server.server_port}/swarm/test:v1"
    workloads = [harness.container(ContainerSpec(image)) for _ in range(3)]
    registry.gate.clear()
    with trio.fail_after(60):
        async with running_executor(harness.executor()) as executor:
            controllers = [executor.controller(workload) for workload in workloads]
            try:
                with trio.move_on_after(0.3):
                    await controllers[0].prepare()
                async with trio.open_nursery() as nursery:
                    for controller in controllers:
                        nursery.start_soon(controller.prepare)
                    await trio.sleep(0.2)
                    registry.gate.set()
                await controllers[2].start()
                assert (await controllers[2].wait()).code == 0
                assert [line.data async for line in controllers[2].logs(LogOptions())] == [b"pulled"]
            finally:
                with trio.CancelScope(shield=True):
                    for controller in controllers:
                        await controller.remove()
                    await trio.to_thread.run_sync(harness.engine.api.remove_image, image)
    assert sum("GET" in line and "/blobs/" in line for line in registry.requests) == 2, registry.requests


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (
            "127.0.0.1:9/swarm/none:latest",
            "127.0.0.1:9/swarm/none:latest is not on this node and cannot be pulled: .*refused",
        ),
        ("Bad Image", "Bad Image"),
    ],
)
async def test_image_that_cannot_be_had(harness: DockerHarness, image: str, words: str) -> None:
    async with running_executor(harness.executor()) as executor:
        with pytest.raises(ExecutorError, match=words) as refused:
            await executor.controller(harness.container(ContainerSpec(image))).prepare()
        assert not isinstance(refused.value, TemporaryError)


async def test_image_that_the_registry_does_not_have(harness: DockerHarness, registry: Registry) -> None:
    image = f"127.0.0.1:{registry.server.server_port}/swarm/test:v2"
    async with running_executor(harness.executor()) as executor:
        with pytest.raises(
            ExecutorError, match=r"test:v2 is not on this node and cannot be pulled: .*(manifest|not found)"
        ):
            await executor.controller(harness.container(ContainerSpec(image))).prepare()
