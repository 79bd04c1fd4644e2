"""Brings every task's newest status to the managers: recorded on disk first, then sent until it was accepted.

One idea: only the newest status of a task matters, so whatever gathers while a report is under way travels in the next one. A
status that was not accepted is sent again in the next session; one that was recorded is not lost with the process.
"""

from __future__ import annotations

import logging

import trio
from attrs import frozen

from swarm.model.ids import TaskId
from swarm.model.objects import TaskStatus
from swarm.ports.entropy import Entropy
from swarm.ports.task_store import TaskStore
from swarm.runtime import Actor, ErrorCode, Message, Ref, Request, SwarmError, Turn, on
from swarm.wire.messages.dispatcher import ReportStatus, TaskReport

LOG = logging.getLogger("swarm.reporter")

REPORTS_MAX = 1000
"""Statuses in one report: some 200 KiB, which one proposal carries."""
REPORT_TIMEOUT_S = 10.0
RETRY_S = 0.5
"""First pause after a failure; doubled up to `RETRY_S_MAX`, each drawn between half and all of it."""
RETRY_S_MAX = 8.0
_HOPELESS = frozenset({ErrorCode.DENIED, ErrorCode.INVALID})
"""Refusals that sending the same again cannot change."""


@frozen
class StatusChanged(Message):
    """A task's newest status."""

    task_id: TaskId
    status: TaskStatus


@frozen
class ForgetTask(Message):
    """The task is not this node's any more: nothing is reported of it."""

    task_id: TaskId


@frozen
class SessionBegan(Message):
    """Reports go to this dispatcher from now on; everything is reported anew."""

    dispatcher: Ref
    session_id: str


@frozen
class SessionEnded(Message):
    """There is nobody to report to."""

    session_id: str


@frozen
class GetStatuses(Request[dict[TaskId, TaskStatus]]):
    """The newest status of every task."""


@frozen
class _Ready(Message):
    """A job has ended, or a pause: see what is to be done."""

    recorded: tuple[TaskReport, ...] = ()
    accepted: tuple[TaskReport, ...] = ()
    failed: str = ""
    refused: bool = False


class Reporter(Actor):
    """One node's. `known` are the statuses that the record holds already."""

    mailbox_capacity = 4096
    """A node's tasks may all change at once; they wait here, not in their own turns."""

    def __init__(self, store: TaskStore, entropy: Entropy, known: dict[TaskId, TaskStatus]) -> None:
        self._store = store
        self._entropy = entropy
        self.newest = known
        """Given to the next life after a crash."""
        self._unrecorded: dict[TaskId, None] = {}
        self._unsent: dict[TaskId, None] = {}
        """Recorded or not, not accepted in this session. Both are ordered sets: oldest change first."""
        self._session: tuple[Ref, str] | None = None
        self._working = False
        """One job at a time: recording, reporting, or a pause after a failure of either."""
        self._failures = 0
        self._one_by_one = 0
        """So many reports go out alone, since one of them made the managers refuse all."""

    async def stopping(self) -> None:
        """Record what is not on disk yet. A disk that refuses is no bug: the next life asks the executors again."""
        try:
            await self._store.record({id: self.newest[id] for id in self._unrecorded})
        except SwarmError as error:
            LOG.warning("%d statuses are not recorded: %s", len(self._unrecorded), error.text)

    # --- turns -----------------------------------------------------------------------------------------------------
    @on(StatusChanged)
    def changed(self, message: StatusChanged, turn: Turn[None]) -> None:
        """Take it up, unless it is older than what is known."""
        known = self.newest.get(message.task_id)
        if known is not None and (known == message.status or known.state > message.status.state):
            return
        self.newest[message.task_id] = message.status
        self._unrecorded[message.task_id] = None
        self._unsent[message.task_id] = None
        self._work()

    @on(ForgetTask)
    def forget(self, message: ForgetTask, turn: Turn[None]) -> None:
        """Nothing is known of it any more."""
        for known in (self.newest, self._unrecorded, self._unsent):
            known.pop(message.task_id, None)

    @on(SessionBegan)
    def began(self, message: SessionBegan, turn: Turn[None]) -> None:
        """Report everything to the new session."""
        self._session = (message.dispatcher, message.session_id)
        self._unsent = dict.fromkeys(self.newest)
        self._failures = 0
        self._work()

    @on(SessionEnded)
    def ended(self, message: SessionEnded, turn: Turn[None]) -> None:
        """Keep what there is for the next one."""
        if self._session is not None and self._session[1] == message.session_id:
            self._session = None

    @on(GetStatuses)
    def statuses(self, request: GetStatuses, turn: Turn[dict[TaskId, TaskStatus]]) -> dict[TaskId, TaskStatus]:
        """All of them."""
        return dict(self.newest)

    @on(_Ready)
    def ready(self, message: _Ready, turn: Turn[None]) -> None:
        """Note what the job achieved; go on, after a pause if it failed."""
        self._working = False
        for report in message.recorded:
            self._done(self._unrecorded, report)
        for report in message.accepted:
            self._done(self._unsent, report)
        if message.refused:
            self._one_by_one = REPORTS_MAX
        if message.failed:
            self._failures += 1
            pause = min(RETRY_S * 2 ** (self._failures - 1), RETRY_S_MAX)
            LOG.info("%s; again within %g s", message.failed, pause)
            self._working = True
            self.job(self._pause, self._entropy.uniform(pause / 2, pause))
            return
        if message.recorded or message.accepted:
            self._failures = 0
        self._work()

    def _done(self, waiting: dict[TaskId, None], report: TaskReport) -> None:
        if self.newest.get(report.task_id) == report.status:
            waiting.pop(report.task_id, None)

    def _work(self) -> None:
        """Record if there is something to record, else report."""
        if self._working:
            return
        if self._unrecorded:
            self._working = True
            self.job(self._record, self._reports(self._unrecorded, len(self._unrecorded)))
        elif self._unsent and self._session is not None:
            count = REPORTS_MAX if not self._one_by_one else 1
            self._one_by_one = max(0, self._one_by_one - 1)
            self._working = True
            self.job(self._report, *self._session, self._reports(self._unsent, count))

    def _reports(self, ids: dict[TaskId, None], count: int) -> tuple[TaskReport, ...]:
        return tuple(TaskReport(id, self.newest[id]) for id, _ in zip(ids, range(count), strict=False))

    # --- jobs ------------------------------------------------------------------------------------------------------
    async def _pause(self, seconds: float) -> None:
        await trio.sleep(seconds)
        await self.ref.tell(_Ready())

    async def _record(self, reports: tuple[TaskReport, ...]) -> None:
        try:
            await self._store.record({report.task_id: report.status for report in reports})
        except SwarmError as error:
            await self.ref.tell(_Ready(failed=error.text))
        else:
            await self.ref.tell(_Ready(recorded=reports))

    async def _report(self, dispatcher: Ref, session_id: str, reports: tuple[TaskReport, ...]) -> None:
        try:
            await dispatcher.ask(ReportStatus(session_id, reports), timeout_s=REPORT_TIMEOUT_S)
        except SwarmError as error:
            await self.ref.tell(self._refused(error, reports))
        else:
            await self.ref.tell(_Ready(accepted=reports))

    def _refused(self, error: SwarmError, reports: tuple[TaskReport, ...]) -> _Ready:
        if error.code not in _HOPELESS:
            return _Ready(failed=f"{len(reports)} statuses were not accepted: {error.text}")
        if len(reports) > 1:
            return _Ready(refused=True)
        LOG.error("the status of task %s is given up: the managers refuse it: %s", reports[0].task_id, error.text)
        return _Ready(accepted=reports)
