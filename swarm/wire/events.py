"""What a multiplexer tells its driver: the events that the peer's frames amount to."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

from swarm.wire.frames import Hello, Open


class Up(NamedTuple):
    """The peer's Hello came: calls may flow."""

    hello: Hello


class Opened(NamedTuple):
    """The peer calls; `call` is to be answered, ended or failed unless it is an offer."""

    call: int
    open: Open


class Answered(NamedTuple):
    """Our ask or tell was answered."""

    call: int
    body: bytes


class Failed(NamedTuple):
    """Our call was refused or broke."""

    call: int
    code: str
    text: str
    details: dict[str, str]


class ItemArrived(NamedTuple):
    """The next item of our stream. Call `taken` once it was consumed."""

    call: int
    body: bytes


class Ended(NamedTuple):
    """Our stream is complete."""

    call: int


class Cancelled(NamedTuple):
    """The peer gave up on its call; the Fail that ends it is already in the outbox."""

    call: int
    reason: str


class Credited(NamedTuple):
    """The stream that we feed may go on."""

    call: int


class Ponged(NamedTuple):
    """Our ping came back."""

    number: int


class Wanted(NamedTuple):
    """The accepting side needs the lane of this name."""

    lane: str


class GoneAway(NamedTuple):
    """The peer ends the connection and says why. All our calls are over."""

    reason: str


Event: TypeAlias = (
    Up | Opened | Answered | Failed | ItemArrived | Ended | Cancelled | Credited | Ponged | Wanted | GoneAway
)
