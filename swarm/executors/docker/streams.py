"""An answer of the engine that goes on: events, a container's output.

Its one idea: one thread reads it and anyone may end it. Whoever ends it only wakes the reading thread; that thread alone
closes the connection, on every way out, so that none is left for the garbage collector.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from swarm.executors.base import ExecutorError

if TYPE_CHECKING:
    from docker import APIClient
    from requests import Response


class LongAnswer:
    """At most one answer, read by one thread with `reading`; `end` may be called at any time, in any thread."""

    def __init__(self) -> None:
        self._response: Response | None = None
        self._is_ended = False

    @contextmanager
    def reading(self, api: APIClient, path: str, parameters: Mapping[str, Any]) -> Iterator[Response]:
        """Asks for `path` and gives the answer, to be read inside. Blocks, until the engine begins to answer.

        Raises `ExecutorError` when the engine refuses.
        """
        url = f"{api.base_url}/v{api.api_version}{path}"
        response = api.get(url, params=parameters, stream=True, timeout=(api.timeout, None))
        try:
            if not response.ok:
                raise ExecutorError(f"the Docker Engine refused {path}: {response.status_code} {response.reason}")
            self._response = response
            if self._is_ended:  # before there was an answer to interrupt
                _interrupt(response)
            yield response
        finally:
            response.close()

    def end(self) -> None:
        """The reading thread sees the end of the answer. Ended already is success."""
        self._is_ended = True
        if self._response is not None:
            _interrupt(self._response)


def _interrupt(response: Response) -> None:
    from docker.types import CancellableStream

    try:
        CancellableStream(iter(()), response).close()  # knows where the SDK hides the socket
    except (OSError, AttributeError):
        pass  # it looks for the socket of a response that has just been read to its end
