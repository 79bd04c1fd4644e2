"""What the core refuses, each with the fact that the caller needs to go on. A refusal changes nothing."""

from __future__ import annotations

from swarm.raft.messages import Index, RaftId, Term


class RaftError(Exception):
    """A refusal by the core."""


class NotLeader(RaftError):
    """This member does not lead; `leader` is who does, 0 when nobody is known."""

    def __init__(self, leader: RaftId) -> None:
        super().__init__(f"this member does not lead; the leader is {leader:x}" if leader else "no leader is known")
        self.leader = leader


class StaleTerm(RaftError):
    """The caller's scope was opened in another term than the present one."""

    def __init__(self, asked: Term, current: Term) -> None:
        super().__init__(f"proposed for term {asked}, the present term is {current}")
        self.asked = asked
        self.current = current


class Overloaded(RaftError):
    """Too much is under way already; try again when some of it is done."""


class EntryTooLarge(RaftError):
    """The data is larger than an entry may be."""

    def __init__(self, size_bytes: int, limit_bytes: int) -> None:
        super().__init__(f"a proposal of {size_bytes} bytes was refused, the limit is {limit_bytes}")
        self.size_bytes = size_bytes
        self.limit_bytes = limit_bytes


class TransferInProgress(RaftError):
    """The leader is handing over and takes no proposals until that is done or given up."""

    def __init__(self, target: RaftId) -> None:
        super().__init__(f"leadership is being handed over to {target:x}")
        self.target = target


class NoTransferTarget(RaftError):
    """Nobody could take over: the named member is no live voter, or there is none."""


class ChangeRefused(RaftError):
    """A membership change that makes no sense now; the text says why."""


class ChangePending(RaftError):
    """Another membership change is not committed yet, or the leader has committed nothing in its term yet."""

    def __init__(self, text: str, index: Index) -> None:
        super().__init__(text)
        self.index = index
        """Try again once this index is committed."""


class InvariantBroken(Exception):
    """Something that Raft's rules exclude: a damaged log or a bug. The member must stop; its data is evidence."""
