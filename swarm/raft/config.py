"""Limits and periods of consensus, each with its unit and its reason.

Periods are in ticks, whose length the caller of `Raft.tick` chooses (50 ms in production).
"""

from __future__ import annotations

from attrs import field, frozen
from attrs.validators import ge

ELECTION_TICKS = 24
"""1.2 s of silence before a follower doubts its leader: far above a stall of a busy machine (0.3 s was the worst seen),
and twice it plus a vote stays under 3 s when a leader stops without closing its connections."""
HEARTBEAT_TICKS = 6
"""Four chances within an election timeout; each costs the leader of three a thousandth of a core a second."""
HINT_JITTER_TICKS = 2
"""After a lost link to the leader: campaign within 0 to 100 ms, so that followers seldom split the vote."""
RETRY_TICKS = 3
"""Shortest wait before a failed campaign is tried again; the longest doubles with every attempt, up to an election
timeout. Elections end in two round trips and one disk write, well under 150 ms in one data centre."""

ENTRY_BYTES_MAX = 4 * 1024 * 1024
"""A larger proposal is refused: on the wire it would hold back heartbeats for too long."""
APPEND_BYTES_MAX = 256 * 1024
"""Entries' bytes in one append; one larger entry goes alone."""
APPEND_ENTRIES_MAX = 1024
"""Entries in one append: bounds the time of one step."""
INFLIGHT_APPENDS_MAX = 256
"""Appends under way to one follower before the leader waits for an acknowledgement."""
INFLIGHT_BYTES_MAX = 512 * 1024
"""The same in bytes: what the outgoing queue of a link holds without refusing; one more append always fits."""
UNCOMMITTED_ENTRIES_MAX = 65_536
"""Proposals under way; more are refused as overloaded, so that a leader without a quorum does not fill its memory."""
UNCOMMITTED_BYTES_MAX = 64 * 1024 * 1024
"""The same in bytes; one proposal is always let in when none is under way."""
APPLY_BYTES_MAX = 1024 * 1024
"""Committed bytes handed over in one `Ready`; one larger entry goes alone."""
APPLYING_ENTRIES_MAX = 65_536
"""Committed entries handed over and not yet reported as applied."""

SNAPSHOT_CHUNK_BYTES = 64 * 1024
"""Size of a chunk: large enough for throughput, small enough for a lane that others share."""
SNAPSHOT_CHUNKS_MAX = 65_536
"""4 GiB; a larger snapshot is refused by the receiver."""
SNAPSHOT_WINDOW = 8
"""Chunks under way to one follower: 512 KiB, what the outgoing queue of a link holds."""
COMPACTION_HOLD_ENTRIES = 200_000
"""How far compaction waits for a follower that is catching up: 10 s of writes at 20,000 a second. Beyond, it starts over
with a newer snapshot."""
COMPACTION_HOLD_BYTES = 256 * 1024 * 1024
"""The same in bytes of the log in memory."""

READS_MAX = 4_096
"""Reads that wait for their round, own and forwarded; more are refused."""
REMOVED_MAX = 1_024
"""Removed ids that are remembered. One that is forgotten is treated as a stranger, who cannot win an election against
live members."""


@frozen
class Config:
    """What a core is made with; the defaults are the constants above, tests use smaller ones."""

    election_ticks: int = field(default=ELECTION_TICKS, validator=ge(2))
    heartbeat_ticks: int = field(default=HEARTBEAT_TICKS, validator=ge(1))
    hint_jitter_ticks: int = HINT_JITTER_TICKS
    retry_ticks: int = field(default=RETRY_TICKS, validator=ge(1))
    entry_bytes_max: int = ENTRY_BYTES_MAX
    append_bytes_max: int = APPEND_BYTES_MAX
    append_entries_max: int = field(default=APPEND_ENTRIES_MAX, validator=ge(1))
    inflight_appends_max: int = field(default=INFLIGHT_APPENDS_MAX, validator=ge(1))
    inflight_bytes_max: int = INFLIGHT_BYTES_MAX
    uncommitted_entries_max: int = UNCOMMITTED_ENTRIES_MAX
    uncommitted_bytes_max: int = UNCOMMITTED_BYTES_MAX
    apply_bytes_max: int = APPLY_BYTES_MAX
    applying_entries_max: int = APPLYING_ENTRIES_MAX
    snapshot_window: int = field(default=SNAPSHOT_WINDOW, validator=ge(1))
    compaction_hold_entries: int = COMPACTION_HOLD_ENTRIES
    compaction_hold_bytes: int = COMPACTION_HOLD_BYTES
    reads_max: int = READS_MAX

    def __attrs_post_init__(self) -> None:
        if self.heartbeat_ticks >= self.election_ticks:
            raise ValueError(
                f"heartbeat_ticks {self.heartbeat_ticks} must be below election_ticks {self.election_ticks}"
            )
