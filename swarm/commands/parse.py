"""Text that users type, turned into values: durations, sizes, CPU shares, key=value pairs, ports, mounts.

Every function raises `ValueError` with what was found and what a right value looks like.
"""

from __future__ import annotations

import re

from swarm.model.specs import GenericResource, Mount, Platform, Port
from swarm.model.states import MountType, Protocol, PublishMode

_DURATION_UNITS_S = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h|d)")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?\Z", re.IGNORECASE)
_SIZE_FACTORS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


def duration_s(text: str) -> float:
    """Seconds of `500ms`, `10s`, `1m30s`, `2h`; a bare number is seconds."""
    stripped = text.strip().lower()
    if re.fullmatch(r"\d+(\.\d+)?", stripped):
        return float(stripped)
    parts = _DURATION_PART.findall(stripped)
    if not parts or "".join(number + unit for number, unit in parts) != stripped:
        raise ValueError(f"{text!r} is not a duration: write 500ms, 10s, 1m30s or 2h")
    return sum(float(number) * _DURATION_UNITS_S[unit] for number, unit in parts)


def size_bytes(text: str) -> int:
    """Bytes of `512m`, `2g`, `64MiB`; powers of 1024, a bare number is bytes."""
    found = _SIZE.match(text.strip())
    if not found:
        raise ValueError(f"{text!r} is not a size: write 512m, 2g or a number of bytes")
    return int(float(found[1]) * _SIZE_FACTORS[found[2].lower()])


def nano_cpus(text: str) -> int:
    """Nano-CPUs of `0.5` (half a core)."""
    try:
        cores = float(text)
    except ValueError:
        cores = -1.0
    if not 0 <= cores < 1e9:
        raise ValueError(f"{text!r} is not a number of cores: write 0.5 or 2")
    return round(cores * 1e9)


def key_value(text: str, what: str) -> tuple[str, str]:
    """Key and value of `key=value`; a key without `=` gets an empty value."""
    key, _, value = text.partition("=")
    if not key.strip():
        raise ValueError(f"{what} {text!r} has no name: write NAME=VALUE")
    return key.strip(), value


def fields_of(text: str, what: str, known: frozenset[str]) -> dict[str, str]:
    """The fields of a `key=value,key=value` text, each of them known."""
    found: dict[str, str] = {}
    for part in text.split(","):
        key, _, value = part.partition("=")
        key = key.strip().lower()
        if key not in known:
            raise ValueError(f"{what} {text!r}: {key!r} is not known; the fields are {', '.join(sorted(known))}")
        found[key] = value.strip()
    return found


_PORT_FIELDS = frozenset({"target", "published", "protocol", "mode", "name"})


def port(text: str) -> Port:
    """A port of `8080:80/tcp`, `80`, or `published=8080,target=80,protocol=tcp,mode=host`."""
    if "=" in text:
        values = fields_of(text, "port", _PORT_FIELDS)
    else:
        numbers, _, protocol = text.partition("/")
        published, colon, target = numbers.rpartition(":")
        values = {"target": target, "published": published if colon else "0", "protocol": protocol or "tcp"}
    try:
        return Port(
            target=int(values.get("target", "")),
            published=int(values.get("published") or 0),
            protocol=Protocol(values.get("protocol", "tcp").lower()),
            mode=PublishMode(values.get("mode", "host").lower()),
            name=values.get("name", ""),
        )
    except ValueError:
        raise ValueError(
            f"port {text!r} is not a port: write PUBLISHED:TARGET[/tcp|udp|sctp] or published=8080,target=80"
        ) from None


_MOUNT_FIELDS = frozenset(
    {
        "type",
        "source",
        "src",
        "target",
        "dst",
        "destination",
        "readonly",
        "ro",
        "volume-driver",
        "tmpfs-size",
        "tmpfs-mode",
    }
)


def mount(text: str) -> Mount:
    """A mount of `type=bind,source=/srv,target=/data,readonly` or `type=tmpfs,target=/tmp,tmpfs-size=64m`."""
    values = fields_of(text, "mount", _MOUNT_FIELDS)
    target = values.get("target") or values.get("dst") or values.get("destination")
    if not target:
        raise ValueError(f"mount {text!r} has no target: write type=bind,source=/srv,target=/data")
    read_only = values.get("readonly", values.get("ro"))
    try:
        kind = MountType(values.get("type", "volume"))
    except ValueError:
        raise ValueError(f"mount type {values['type']!r} is not known: bind, volume or tmpfs") from None
    mode = values.get("tmpfs-mode", "0")
    if not re.fullmatch(r"[0-7]+", mode):
        raise ValueError(f"tmpfs mode {mode!r} is not octal: write 1777")
    return Mount(
        target=target,
        source=values.get("source") or values.get("src") or "",
        type=kind,
        read_only=read_only is not None and read_only.lower() in ("", "1", "true", "yes"),
        driver=values.get("volume-driver", ""),
        tmpfs_size_bytes=size_bytes(values["tmpfs-size"]) if "tmpfs-size" in values else 0,
        tmpfs_mode=int(mode, 8),
    )


def generic_resource(text: str) -> GenericResource:
    """An amount of a kind, as in `gpu=2`."""
    kind, _, amount = text.partition("=")
    if not kind or not amount.isdigit():
        raise ValueError(f"generic resource {text!r} is not an amount of a kind: write gpu=2")
    return GenericResource(kind=kind, amount=int(amount))


def preference(text: str) -> str:
    """The label of `spread=node.labels.zone`."""
    kind, _, label = text.partition("=")
    if kind.strip() != "spread" or not label.strip():
        raise ValueError(f"placement preference {text!r} is not known: write spread=node.labels.zone")
    return label.strip()


def platform(text: str) -> Platform:
    """An operating system and architecture, as in `linux/amd64`."""
    os, slash, architecture = text.partition("/")
    if not slash:
        raise ValueError(f"platform {text!r} is not OS/ARCHITECTURE: write linux/amd64")
    return Platform(architecture=architecture, os=os)
