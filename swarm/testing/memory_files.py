"""Files in memory: the small-files port of simulated nodes, whose content outlives a simulated crash."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from attrs import define, field


@define
class MemoryFiles:
    """As `DiskFiles`, without a disk: each write is whole and durable at once."""

    root: Path = Path("/simulated")
    content: dict[str, bytes] = field(factory=dict)

    def read(self, name: str) -> bytes | None:
        """The whole file, None when there is none."""
        return self.content.get(name)

    def write(self, name: str, data: bytes, *, mode: int = 0o600) -> None:
        """Replace the file as a whole."""
        self.content[name] = data

    def remove(self, name: str) -> None:
        """Remove a file, or everything under a directory."""
        self.content = {
            path: data for path, data in self.content.items() if path != name and not path.startswith(name + "/")
        }

    def names(self) -> list[str]:
        """What lies in the root, sorted."""
        return sorted({PurePosixPath(path).parts[0] for path in self.content})

    def close(self) -> None:
        """Nothing is locked in memory."""
