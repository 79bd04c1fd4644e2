"""Containers through the command, on a real Docker Engine with real daemons: the life of a service, and what goes wrong.

The image is built on the spot (`busybox_image`), so no registry is needed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from swarm.testing.daemons import LocalCluster, local_cluster, wait_until

pytestmark = [pytest.mark.docker, pytest.mark.integration, pytest.mark.timeout(240)]

SECOND_TAG = "swarm-test-busybox:second"


@pytest.fixture(scope="module")
def engine() -> Iterator[Any]:
    """The engine itself, to see what the daemons did to it."""
    import docker

    client = docker.from_env()
    yield client
    client.close()


@pytest.fixture(scope="module")
def cluster(busybox_image: str, engine: Any) -> Iterator[LocalCluster]:
    """A manager, and a worker that runs containers; at the end no container of it is left."""
    engine.images.get(busybox_image).tag(*SECOND_TAG.split(":"))
    with local_cluster() as found:
        found.start("m")
        found.start("w", "worker", "--executor", "docker")
        try:
            yield found
        finally:
            for view in found.json("svc", "ls", node="m"):
                found.attempt("svc", "rm", view["service"]["id"], "--timeout", "60s", node="m")
            for container in containers(engine, found):
                container.remove(force=True)
            engine.images.remove(SECOND_TAG)


def containers(engine: Any, cluster: LocalCluster, service: str = "") -> list[Any]:
    """The containers of this cluster's worker, running or not."""
    node = cluster.json("node", "inspect", "w", node="m")[0]["node"]["id"]
    found = engine.containers.list(all=True)
    return [
        container
        for container in found
        if node in container.labels.values() and (not service or service in container.labels.values())
    ]


def views(cluster: LocalCluster, service: str, *more: str) -> list[Any]:
    found: list[Any] = cluster.json("svc", "ps", service, *more, node="m")
    return found


def running(cluster: LocalCluster, service: str) -> list[Any]:
    return [view for view in views(cluster, service, "--running") if view["task"]["status"]["state"] == "running"]


def create(cluster: LocalCluster, name: str, image: str, *more: str) -> None:
    options, _, command = " ".join(more).partition(" -- ")
    flags = ["--image", image, "--restart-delay", "0s", "--stop-grace-period", "1s", "--timeout", "60s"]
    words = ["svc", "create", "--name", name, *flags, *options.split()]
    cluster.run(*words, *(["--", *command.split("|")] if command else []), node="m")


def test_a_service_of_containers_runs_is_read_updated_and_removed(
    cluster: LocalCluster, engine: Any, busybox_image: str
) -> None:
    create(
        cluster, "web", busybox_image, "--replicas 2 --env SLOT={{.Task.Slot}} --limit-memory 64m --hostname h{{.Task.Slot}}",
        "-- sh|-c|echo slot $SLOT on $(hostname) as {{.Service.Name}}; exec sleep 600",
    )  # fmt: skip
    before = running(cluster, "web")
    assert [(view["node_name"], view["image"]) for view in before] == [("w", busybox_image)] * 2
    wait_until(lambda: cluster.run("svc", "logs", "web", node="m").count("slot ") == 2, "both have spoken")
    said = cluster.run("svc", "logs", "web", node="m")
    assert "slot 1 on h1 as web" in said and "slot 2 on h2 as web" in said
    found = containers(engine, cluster, "web")
    assert {container.status for container in found} == {"running"}
    assert {container.attrs["HostConfig"]["Memory"] for container in found} == {64 << 20}

    cluster.run("svc", "update", "web", "--image", SECOND_TAG, "--timeout", "60s", node="m")
    after = running(cluster, "web")
    assert {view["image"] for view in after} == {SECOND_TAG}
    assert not {view["task"]["id"] for view in before} & {view["task"]["id"] for view in after}
    live = [container for container in containers(engine, cluster, "web") if container.status == "running"]
    assert {container.attrs["Config"]["Image"] for container in live} == {SECOND_TAG}

    cluster.run("svc", "rm", "web", "--timeout", "60s", node="m")
    wait_until(lambda: not containers(engine, cluster, "web"), "its containers are removed")


def test_a_container_that_ends_shows_its_exit_code(cluster: LocalCluster, busybox_image: str) -> None:
    done = cluster.attempt(
        "svc", "create", "--name", "ends", "--image", busybox_image, "--mode", "replicated-job",
        "--restart-condition", "none", "--timeout", "60s", "--", "sh", "-c", "echo going >&2; exit 7", node="m",
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert "7" in done.stderr
    (view,) = views(cluster, "ends")
    assert (view["task"]["status"]["state"], view["task"]["status"]["exit_code"]) == ("failed", 7)
    assert "(7)" in cluster.run("svc", "ps", "ends", node="m")
    assert "going" in cluster.attempt("svc", "logs", "ends", node="m").stderr
    cluster.run("svc", "rm", "ends", "--timeout", "60s", node="m")


def test_an_image_that_is_nowhere_is_named_by_ps_and_why(cluster: LocalCluster) -> None:
    done = cluster.attempt(
        "svc", "create", "--name", "lost", "--image", "127.0.0.1:9/no/such:image", "--restart-condition", "none",
        "--timeout", "60s", node="m",
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    words = "image 127.0.0.1:9/no/such:image is not on this node and cannot be pulled"
    for shown in (done.stderr, cluster.run("svc", "ps", "lost", node="m"), cluster.run("svc", "why", "lost", node="m")):
        assert words in shown
    cluster.run("svc", "rm", "lost", "--timeout", "60s", node="m")


def test_a_program_that_the_image_does_not_have_is_named(cluster: LocalCluster, busybox_image: str) -> None:
    done = cluster.attempt(
        "svc", "create", "--name", "typo", "--image", busybox_image, "--restart-condition", "none", "--timeout", "60s",
        "--", "/bin/no-such-program", node="m",
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert "no-such-program" in cluster.run("svc", "ps", "typo", node="m")
    cluster.run("svc", "rm", "typo", "--timeout", "60s", node="m")


@pytest.mark.parametrize("image", ["Nginx", "nginx:", "https://example.com/nginx"])
def test_what_is_no_image_reference_is_refused_when_it_is_written(cluster: LocalCluster, image: str) -> None:
    done = cluster.attempt("svc", "create", "--name", "no", "--image", image, node="m")
    assert (done.returncode, "is not an image reference" in done.stderr) == (1, True)
    assert cluster.run("svc", "ls", "-q", node="m") == ""


def test_an_agent_that_was_killed_adopts_its_containers(cluster: LocalCluster, engine: Any, busybox_image: str) -> None:
    create(cluster, "stay", busybox_image, "--replicas 3", "-- sleep|600")
    before = {view["task"]["id"] for view in running(cluster, "stay")}
    started = {c.id: c.attrs["State"]["StartedAt"] for c in containers(engine, cluster, "stay")}
    cluster.kill("w")
    gone = sorted(started)[0]
    engine.containers.get(gone).kill()
    lost = engine.containers.get(gone)
    cluster.start("w")
    wait_until(
        lambda: (
            len(running(cluster, "stay")) == 3
            and len({view["task"]["id"] for view in running(cluster, "stay")} & before) == 2
        ),
        "two are adopted, the one that died meanwhile is replaced",
    )
    alive = {c.id: c.attrs["State"]["StartedAt"] for c in containers(engine, cluster, "stay") if c.status == "running"}
    assert {id: at for id, at in started.items() if id != lost.id}.items() <= alive.items()
    cluster.run("svc", "rm", "stay", "--timeout", "60s", node="m")
    wait_until(lambda: not containers(engine, cluster, "stay"), "its containers are removed")


def test_a_container_that_is_killed_from_outside_is_replaced(
    cluster: LocalCluster, engine: Any, busybox_image: str
) -> None:
    create(cluster, "heal", busybox_image, "--replicas 1", "-- sleep|600")
    (container,) = containers(engine, cluster, "heal")
    os.kill(container.attrs["State"]["Pid"], 9)
    wait_until(
        lambda: any(c.status == "running" and c.id != container.id for c in containers(engine, cluster, "heal")),
        "another one runs",
    )
    assert "137" in cluster.run("svc", "ps", "heal", node="m")
    cluster.run("svc", "rm", "heal", "--timeout", "60s", node="m")
