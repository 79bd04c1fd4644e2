"""A real Docker Engine for the tests marked `docker`, or one clear line that says why they are skipped."""

from __future__ import annotations

import io
import os
import shutil
import tarfile

import pytest

from swarm.executors.docker.engine import address_of
from swarm.ports.sockets import why_nobody_answers

IMAGE = "swarm-test-busybox:latest"
DOCKERFILE = (
    b'FROM scratch\nCOPY busybox /bin/busybox\nRUN ["/bin/busybox", "--install", "-s", "/bin"]\nCMD ["/bin/sh"]\n'
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    marked = [item for item in items if item.get_closest_marker("docker")]
    if not marked:
        return
    why = why_nobody_answers(address_of(os.environ))
    if why:
        reason = (
            f"no Docker Engine answers at {address_of(os.environ)} ({why}); "
            "to run the engine tests: apt-get install docker.io busybox-static, then start dockerd (or run .ci/run)"
        )
        for item in marked:
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def busybox_image() -> str:
    """An image with a shell, built from this machine's static busybox: no registry is needed."""
    import docker

    busybox = shutil.which("busybox")
    assert busybox is not None, "the engine tests need a static busybox: apt-get install busybox-static"
    context = io.BytesIO()
    with tarfile.open(fileobj=context, mode="w") as tar:
        header = tarfile.TarInfo("Dockerfile")
        header.size = len(DOCKERFILE)
        tar.addfile(header, io.BytesIO(DOCKERFILE))
        tar.add(busybox, "busybox")
    context.seek(0)
    api = docker.APIClient(version="auto")
    output = list(api.build(fileobj=context, custom_context=True, tag=IMAGE, rm=True, decode=True))
    api.close()
    errors = [message["error"] for message in output if "error" in message]
    assert not errors, errors
    return IMAGE
