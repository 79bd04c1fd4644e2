"""One Docker Engine, spoken to through its SDK: the only module that knows the SDK and its exceptions.

Its one idea: the SDK blocks, so every call is a short one in a bounded pool of threads, and none of them waits for a
container: waiting is done on one event stream. A call that is under way is never abandoned, since a container that is
made after its task was removed would be left behind; a cancelled caller waits for the call's own timeout at most.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

import trio

from swarm.executors.base import ExecutorError, TemporaryError
from swarm.ports.sockets import why_nobody_answers

if TYPE_CHECKING:
    from docker import APIClient

Result = TypeVar("Result")

DEFAULT_ADDRESS = "unix:///var/run/docker.sock"
CALLS_MAX = 8
"""Threads that talk to the engine at once; it serialises much of its work anyway."""
CALL_TIMEOUT_S = 60
"""Making and starting a container takes seconds on a loaded machine; longer means that the engine hangs."""


class EngineRefused(ExecutorError):
    """The engine answered no; `status` is its HTTP status."""

    def __init__(self, text: str, status: int) -> None:
        super().__init__(text)
        self.status = status

    @property
    def is_missing(self) -> bool:
        """No such container, image or volume."""
        return self.status == 404

    @property
    def is_conflict(self) -> bool:
        """A name is taken, or the container is not in the state that the call needs."""
        return self.status == 409


class Engine:
    """The engine that `env` names (DOCKER_HOST, DOCKER_TLS_VERIFY, DOCKER_CERT_PATH), or the machine's own."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self._env = dict(env)
        self._limiter = trio.CapacityLimiter(CALLS_MAX)

    @property
    def address(self) -> str:
        """Where it listens."""
        return address_of(self._env)

    @cached_property
    def api(self) -> APIClient:
        """The SDK's client, made at first use, in whatever thread; its calls block."""
        from docker import APIClient
        from docker.utils import kwargs_from_env

        why = why_nobody_answers(self.address)
        if why:  # found out here because the SDK leaves its socket open
            raise self._silence(why)
        settings = kwargs_from_env(environment=self._env)
        settings.setdefault("base_url", self.address)
        return APIClient(version="auto", timeout=CALL_TIMEOUT_S, max_pool_size=CALLS_MAX, **settings)

    async def call(self, function: Callable[[APIClient], Result], *, failing_is_final: bool = False) -> Result:
        """What `function` returns, run in a thread; the engine's refusals and silence as `ExecutorError`s.

        `failing_is_final`: the engine's own failure (status 5xx) is a refusal as well, because it says so of containers
        that cannot be made or started: a port that is taken, a device that is not there.
        """

        def translated() -> Result:
            with self.translated(failing_is_final=failing_is_final):
                return function(self.api)

        return await trio.to_thread.run_sync(translated, limiter=self._limiter)

    @contextmanager
    def translated(self, *, failing_is_final: bool = False) -> Iterator[None]:
        """The SDK's exceptions inside become `EngineRefused` and `TemporaryError`."""
        import docker.errors
        import requests.exceptions

        try:
            yield
        except docker.errors.APIError as error:
            raise _refusal(error, failing_is_final=failing_is_final) from None
        except (docker.errors.DockerException, requests.exceptions.RequestException, OSError) as error:
            raise self._silence(_brief(error)) from None

    def _silence(self, why: str) -> TemporaryError:
        return TemporaryError(
            f"the Docker Engine at {self.address} does not answer ({why}); is it running? `systemctl status docker`"
        )


def address_of(env: Mapping[str, str]) -> str:
    """Where the engine of an environment listens."""
    return env.get("DOCKER_HOST") or DEFAULT_ADDRESS


def _refusal(error: Any, *, failing_is_final: bool) -> ExecutorError:
    status = int(error.response.status_code) if error.response is not None else 500
    text = str(error.explanation or error)
    if isinstance(error.explanation, bytes):
        text = error.explanation.decode("utf-8", "replace")
    if status >= 500 and not failing_is_final:
        return TemporaryError(f"the Docker Engine failed: {text.strip()}")
    return EngineRefused(f"the Docker Engine refused: {text.strip()}", status)


def _brief(error: BaseException) -> str:
    """The innermost reason of an exception that libraries have wrapped several times."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).strip()
