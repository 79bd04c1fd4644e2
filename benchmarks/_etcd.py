"""Three etcd members as processes, TLS between them and to the client, and a client that costs next to nothing.

The client speaks gRPC on one HTTP/2 connection with constant headers: it packs frames by hand, counts the streams that end,
and decodes nothing else, so that what is measured is etcd. `Etcd.revision` afterwards says whether every put was applied.
"""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import json
import shutil
import socket
import ssl
import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from attrs import frozen
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

START_S = 20.0
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 4, 6, 7, 8
END_STREAM, END_HEADERS, ACK = 1, 4, 1
WINDOW = 65_535
OUR_WINDOW = 1 << 30
READ_BYTES = 256 * 1024


def is_here() -> bool:
    """Whether etcd and etcdctl are installed."""
    return shutil.which("etcd") is not None and shutil.which("etcdctl") is not None


@frozen
class Etcd:
    """A running cluster."""

    leader: str
    """host:port of the leader's client side."""
    directory: Path

    def revision(self) -> int:
        """The store's revision: one more with every put."""
        return int(_status(self.directory, [self.leader])[0]["Status"]["header"]["revision"])


def _status(directory: Path, endpoints: list[str]) -> list[dict[str, dict[str, dict[str, int]]]]:
    command = ["etcdctl", "--endpoints", ",".join(f"https://{one}" for one in endpoints)]
    files = ["--cacert", "root.pem", "--cert", "node.pem", "--key", "node.key"]
    out = subprocess.run(
        [*command, *files, "endpoint", "status", "-w", "json"], cwd=directory, capture_output=True, timeout=10
    )
    found: list[dict[str, dict[str, dict[str, int]]]] = json.loads(out.stdout or b"[]")
    return found


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on."""
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [int(one.getsockname()[1]) for one in sockets]
    for one in sockets:
        one.close()
    return ports


@contextlib.contextmanager
def cluster(directory: Path) -> Iterator[Etcd]:
    """Three members that have a leader."""
    _write_certificates(directory)
    ports = free_ports(6)
    clients = [f"127.0.0.1:{port}" for port in ports[:3]]
    peers = [f"https://127.0.0.1:{port}" for port in ports[3:]]
    names = ["m1", "m2", "m3"]
    members = ",".join(f"{name}={peer}" for name, peer in zip(names, peers, strict=True))
    files = ["--cert-file=node.pem", "--key-file=node.key", "--trusted-ca-file=root.pem", "--client-cert-auth"]
    between = ["--peer-cert-file=node.pem", "--peer-key-file=node.key", "--peer-trusted-ca-file=root.pem"]
    processes = [
        subprocess.Popen(
            ["etcd", f"--name={name}", f"--data-dir={name}", f"--initial-cluster={members}", "--log-level=error",
             f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}", "--peer-client-cert-auth",
             f"--listen-client-urls=https://{client}", f"--advertise-client-urls=https://{client}", *files, *between],
            cwd=directory, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        for name, client, peer in zip(names, clients, peers, strict=True)
    ]  # fmt: skip
    try:
        yield Etcd(_leader(directory, clients), directory)
    finally:
        for process in processes:
            process.kill()
        for process in processes:
            process.wait()


def _leader(directory: Path, clients: list[str]) -> str:
    until = time.monotonic() + START_S
    while time.monotonic() < until:
        for one in _status(directory, clients):
            status = one["Status"]
            if status.get("leader") and status["leader"] == status["header"]["member_id"]:
                return str(one["Endpoint"]).removeprefix("https://")
        time.sleep(0.2)
    raise RuntimeError("etcd has no leader")


def _write_certificates(directory: Path) -> None:
    """One throw-away certificate for all members and the client, P-256 as etcd's own tools make them."""
    now = datetime.datetime.now(datetime.UTC)
    root_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    root_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "bench root")])
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "bench")])

    def builder(subject: x509.Name, public: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        made = x509.CertificateBuilder().subject_name(subject).issuer_name(root_name).public_key(public)
        made = made.serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(hours=1))
        return made.not_valid_after(now + datetime.timedelta(days=1))

    root = builder(root_name, root_key.public_key()).add_extension(x509.BasicConstraints(True, None), True)
    node = builder(name, key.public_key())
    node = node.add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
    usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    node = node.add_extension(x509.ExtendedKeyUsage(usages), False)
    pem = serialization.Encoding.PEM
    (directory / "root.pem").write_bytes(root.sign(root_key, hashes.SHA256()).public_bytes(pem))
    (directory / "node.pem").write_bytes(node.sign(root_key, hashes.SHA256()).public_bytes(pem))
    (directory / "node.key").write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )


class Client:
    """Puts on one connection, any number of them in flight."""

    def __init__(self, etcd: Etcd) -> None:
        context = ssl.create_default_context(cafile=str(etcd.directory / "root.pem"))
        context.load_cert_chain(str(etcd.directory / "node.pem"), str(etcd.directory / "node.key"))
        context.set_alpn_protocols(["h2"])
        host, port = etcd.leader.split(":")
        plain = socket.create_connection((host, int(port)))
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = context.wrap_socket(plain, server_hostname=host)
        self._headers = _headers(etcd.leader)
        self._stream = 1
        self._window = WINDOW
        self._buffer = b""
        settings = struct.pack("!HI", 4, OUR_WINDOW)
        self._out = [PREFACE, _frame(SETTINGS, 0, 0, settings), _update(OUR_WINDOW)]

    def close(self) -> None:
        """Hang up."""
        self._socket.close()

    def run(self, key: bytes, value: bytes, in_flight: int, seconds: float) -> list[float]:
        """Keep `in_flight` puts under way for so long; each one's latency in seconds."""
        body = _put_request(key, value)
        message = b"\x00" + struct.pack("!I", len(body)) + body
        under_way: dict[int, float] = {}
        latencies: list[float] = []
        end = time.perf_counter() + seconds
        room = in_flight
        while room or under_way:
            now = time.perf_counter()
            while room and now < end and self._window >= len(message):
                room -= 1
                self._window -= len(message)
                self._out.append(_frame(HEADERS, END_HEADERS, self._stream, self._headers))
                self._out.append(_frame(DATA, END_STREAM, self._stream, message))
                under_way[self._stream] = time.perf_counter()
                self._stream += 2
            if self._out:
                self._socket.sendall(b"".join(self._out))
                self._out.clear()
            if not under_way:
                break
            for stream in self._ended():
                latencies.append(time.perf_counter() - under_way.pop(stream))
                room += 1
        return latencies

    def _ended(self) -> list[int]:
        """Read what there is; the streams that it ends."""
        data = self._socket.recv(READ_BYTES)
        if not data:
            raise RuntimeError("etcd hung up")
        buffer, at, ended = self._buffer + data, 0, []
        while len(buffer) - at >= 9:
            size = int.from_bytes(buffer[at : at + 3], "big")
            if len(buffer) - at < 9 + size:
                break
            kind, flags = buffer[at + 3], buffer[at + 4]
            stream = int.from_bytes(buffer[at + 5 : at + 9], "big")
            payload = buffer[at + 9 : at + 9 + size]
            at += 9 + size
            if kind in (DATA, HEADERS):
                if flags & END_STREAM:
                    ended.append(stream)
            elif kind == WINDOW_UPDATE and not stream:
                self._window += int.from_bytes(payload, "big")
            elif kind in (SETTINGS, PING) and not flags & ACK:
                self._out.append(_frame(kind, ACK, 0, payload if kind == PING else b""))
            elif kind == GOAWAY:
                raise RuntimeError(f"etcd ends the connection: {payload[8:].decode()}")
        self._buffer = buffer[at:]
        return ended


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def _update(size: int) -> bytes:
    return _frame(WINDOW_UPDATE, 0, 0, struct.pack("!I", size))


def _headers(authority: str) -> bytes:
    """HPACK without any table but the static one, so that each request's headers are the same bytes."""

    def text(value: str) -> bytes:
        return bytes((len(value),)) + value.encode()

    plain = [(":authority", authority), (":path", "/etcdserverpb.KV/Put"), ("content-type", "application/grpc")]
    literal = b"".join(b"\x00" + text(name) + text(value) for name, value in [*plain, ("te", "trailers")])
    return b"\x83\x87" + literal  # :method POST, :scheme https


def _put_request(key: bytes, value: bytes) -> bytes:
    def varint(number: int) -> bytes:
        out = b""
        while number > 0x7F:
            out += bytes((number & 0x7F | 0x80,))
            number >>= 7
        return out + bytes((number,))

    return b"\x0a" + varint(len(key)) + key + b"\x12" + varint(len(value)) + value
