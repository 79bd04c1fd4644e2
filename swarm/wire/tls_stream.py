"""TLS over a byte stream, at one turn of the loop a message.

One idea: what the kernel takes at once is sent in the caller's turn, and what arrived is decrypted in the turn that it was
read in. Trio's own TLS stream is general (renegotiation, any stream, a checkpoint before and after each step) and gives four
turns of the loop to sending one small message and three to receiving one; a committed write crosses this layer eight times.
TLS 1.3 renegotiates nothing, so that reading and writing need no care for each other. Cryptography is OpenSSL's, through the
standard library's `SSLObject`.
"""

from __future__ import annotations

import ssl
from typing import Final

import trio

from swarm.wire.streams import ByteStream, carrier

READ_BYTES_MAX: Final = 256 * 1024
"""Decrypted at once: what two full batches of frames take."""
RECORD_BYTES: Final = 16 * 1024
"""The longest TLS record, and so the most that one read of OpenSSL gives."""


class TlsStream(trio.abc.Stream):
    """One side of a TLS session over `raw`, which it owns. One task receives at a time; any number may send.

    The end of `raw` is the end of the stream, with or without TLS's own word for it: whole messages are counted above.
    """

    def __init__(self, raw: ByteStream, context: ssl.SSLContext, *, server_side: bool = False) -> None:
        self.raw = raw
        self._carrier = carrier(raw)
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.session: ssl.SSLObject = context.wrap_bio(self._incoming, self._outgoing, server_side=server_side)
        """For the peer's certificate."""
        self._sending = trio.StrictFIFOLock()
        """Held by whoever waits for the kernel to take more; the next one's bytes go behind it."""
        self._rest = b""
        """Encrypted, not taken by the kernel yet, and not in the hands of the holder of `_sending`."""
        self._broken = False
        """Half a record may have been sent, or OpenSSL has given up: nothing more can be said or heard."""
        self._failure: ssl.SSLError | None = None
        """What OpenSSL said when it gave up, for who comes next."""

    # --- handshake ---------------------------------------------------------------------------------------------------
    async def do_handshake(self) -> None:
        """`trio.BrokenResourceError`, caused by the `ssl.SSLError` that tells why, when there is no session to be had."""
        while True:
            try:
                self.session.do_handshake()
            except ssl.SSLWantReadError:
                await self.send(b"")
                data = await self._carrier.receive()
                if data:
                    self._incoming.write(data)
                else:
                    self._incoming.write_eof()
            except ssl.SSLError as error:
                raise self._break(error) from error
            else:
                return await self.send(b"")

    async def send_alert(self) -> None:
        """After a handshake that failed: tell the peer why, as OpenSSL has it ready."""
        if self._outgoing.pending:
            await self.raw.send_all(self._outgoing.read())

    # --- data --------------------------------------------------------------------------------------------------------
    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """All that has arrived, at most `max_bytes`; empty at the end."""
        limit = READ_BYTES_MAX if max_bytes is None else max_bytes
        while True:
            data = self._decrypt(limit)
            if data is None:
                return b""
            if self._outgoing.pending and not self._broken:  # the answer to a new key of the peer's
                await self.send(b"")
            if data:
                return data
            received = await self._carrier.receive()
            if not received:
                return b""
            self._incoming.write(received)

    def _decrypt(self, limit: int) -> bytes | None:
        """What can be read now, maybe nothing; None after the peer's last word."""
        self._check()
        session, incoming = self.session, self._incoming
        parts: list[bytes] = []
        size = 0
        try:
            while size < limit and (incoming.pending or session.pending()):
                part = session.read(min(limit - size, RECORD_BYTES))
                size += len(part)
                parts.append(part)
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            if not parts:
                return None
        except ssl.SSLError as error:
            broken = self._break(error)
            if not parts:  # else what came before the damage is read first
                raise broken from error
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def send(self, data: bytes | bytearray) -> None:
        """As `send_all`, without giving way to other tasks when the kernel takes all of it at once."""
        if not self.begin(data):
            await self.finish()

    def begin(self, data: bytes | bytearray) -> bool:
        """Encrypt and send what the kernel takes at once; True when that is all. Otherwise `finish` does the rest."""
        self._check()
        if data:
            try:
                self.session.write(data)
            except ssl.SSLError as error:
                raise self._break(error) from error
        return not self._sending.locked() and not self._rest and self._flushed()

    async def finish(self) -> None:
        """Wait until all that was begun has been sent; whoever stood in line when the stream broke is told so."""
        async with self._sending:
            self._check()
            await self._drain()

    def _flushed(self) -> bool:
        """Whether the kernel has taken all that is to be sent."""
        if not self._outgoing.pending:
            return True
        data = self._outgoing.read()
        try:
            taken = self._carrier.send_now(data)
        except trio.BrokenResourceError:
            self._broken = True
            raise
        self._rest = data[taken:]
        return not self._rest

    async def _drain(self) -> None:
        while self._rest or self._outgoing.pending:
            rest, self._rest = self._rest or self._outgoing.read(), b""
            whole = False
            try:
                await self.raw.send_all(rest)
                whole = True
            finally:
                if not whole:  # who is cancelled here leaves half a record
                    self._broken = True

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Encrypt and send; a sender that is cancelled breaks the stream when it was cut off within a record."""
        await trio.lowlevel.checkpoint()
        await self.send(bytes(data))

    async def wait_send_all_might_not_block(self) -> None:
        """Until the kernel may take more."""
        await self.raw.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        """Close what is below."""
        self._broken = True
        await self.raw.aclose()

    def _check(self) -> None:
        if self._broken:
            raise trio.BrokenResourceError("this TLS session is broken") from self._failure

    def _break(self, error: ssl.SSLError) -> trio.BrokenResourceError:
        self._broken, self._failure = True, error
        return trio.BrokenResourceError(f"TLS failed: {error}")
