"""Pulling images: once for any number of tasks that need the same one, and to the end even if the task that asked left.

Registry errors are final for a task, in the registry's words: its replacement may find the image there, or on another
node; retrying for ever in silence helps nobody.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable
from typing import Any

import trio
from attrs import define, field

from swarm.executors.base import ExecutorError, TemporaryError
from swarm.executors.docker.engine import Engine

PULLS_MAX = 3
"""Pulls at once; each is a thread and a lot of network."""


@define
class _Pull:
    done: trio.Event = field(factory=trio.Event)
    error: ExecutorError | None = None


class Images:
    """The images of one engine; its pulls run in the executor's nursery."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._limiter = trio.CapacityLimiter(PULLS_MAX)
        self._under_way: dict[tuple[str, str], _Pull] = {}

    async def pull(self, image: str, registry_auth: str, nursery: trio.Nursery) -> None:
        """Returns once the image is there; raises `ExecutorError` with what the registry said."""
        key = (image, registry_auth)
        pull = self._under_way.get(key)
        if pull is None:
            auth = parse_auth(registry_auth)
            pull = self._under_way[key] = _Pull()
            nursery.start_soon(self._run, key, pull, auth)
        await pull.done.wait()
        if pull.error is not None:
            raise pull.error

    async def _run(self, key: tuple[str, str], pull: _Pull, auth: dict[str, Any] | None) -> None:
        pull.error = TemporaryError(f"pulling {key[0]} was interrupted")
        try:
            await trio.to_thread.run_sync(self._pull, key[0], auth, limiter=self._limiter, abandon_on_cancel=True)
            pull.error = None
        except ExecutorError as error:
            pull.error = error
        finally:
            del self._under_way[key]
            pull.done.set()

    def _pull(self, image: str, auth: dict[str, Any] | None) -> None:
        from docker.utils import parse_repository_tag

        repository, tag = parse_repository_tag(image)
        try:
            with self._engine.translated(failing_is_final=True):
                progress = self._engine.api.pull(
                    repository, tag or "latest", stream=True, decode=True, auth_config=auth
                )
                error = last_error(progress)
        except TemporaryError:
            raise
        except ExecutorError as refused:
            error = str(refused)
        if error:
            raise ExecutorError(f"image {image} is not on this node and cannot be pulled: {error}")


def last_error(progress: Iterable[Any]) -> str:
    """What went wrong in a pull, from its progress messages; empty when nothing did."""
    error = ""
    for message in progress:
        if isinstance(message, dict) and message.get("error"):
            error = str(message["error"])
    return error


def parse_auth(registry_auth: str) -> dict[str, Any] | None:
    """The credentials in a spec: base64 of a JSON object, as `docker login` and the Engine API have it."""
    if not registry_auth:
        return None
    try:
        found = json.loads(base64.urlsafe_b64decode(registry_auth))
    except (binascii.Error, ValueError):
        found = None
    if not isinstance(found, dict):
        raise ExecutorError("the registry credentials are not base64 of a JSON object")
    return found
