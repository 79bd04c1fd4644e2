"""Bodies: every declared message comes back, yesterday's bytes read, nonsense is refused by name."""

from __future__ import annotations

import msgpack
import pytest
from attrs import frozen
from hypothesis import given
from hypothesis import strategies as st

import swarm.wire.messages.all  # noqa: F401
from swarm.model import plain
from swarm.model.ids import NodeId, RaftId, ServiceId, TaskId
from swarm.model.objects import Service, Task, TaskStatus
from swarm.model.specs import ContainerSpec, GlobalJob, ProcessSpec, ServiceSpec, TaskSpec
from swarm.model.states import TaskState
from swarm.runtime.errors import ErrorCode, SwarmError
from swarm.runtime.message import Request
from swarm.wire.codec import declaration, decode_message, decode_reply, encode_message, encode_reply, prepare
from swarm.wire.messages.ca import IssuedCertificate, JoinWithToken
from swarm.wire.messages.control import CreateService, ListServices, RemoveService, ServiceView
from swarm.wire.messages.dispatcher import Assignments, Heartbeat, HeartbeatReply, OpenSession, ReportStatus, TaskReport
from swarm.wire.messages.node import StopNode
from swarm.wire.messages.raft import LeaveRaft, RaftMessages
from swarm.wire.registry import by_tag, declared

PROCESS = ServiceSpec("web", TaskSpec(ProcessSpec(("httpd", "-p", "80"), env=("A=1",))))
CONTAINER = ServiceSpec("job", TaskSpec(ContainerSpec("busybox", labels={"a": "b"})), mode=GlobalJob())


@pytest.mark.parametrize(
    "message",
    [
        Heartbeat("session"),
        RaftMessages(RaftId(7), (b"one", b"two")),
        ListServices(stale=True),
        CreateService(PROCESS),
        CreateService(CONTAINER, plan_only=True),
        JoinWithToken("token", b"csr", "nonce", {"zone": "a"}),
        ReportStatus("s", (TaskReport(TaskId("t"), TaskStatus(TaskState.RUNNING, message="up", exit_code=None)),)),
    ],
    ids=lambda message: type(message).__name__,
)
def test_messages_come_back(message: object) -> None:
    what = declaration(message)
    assert decode_message(what, encode_message(what, message)) == message


def test_answers_and_items_come_back() -> None:
    service = Service(ServiceId("s"), PROCESS)
    views = (ServiceView(service, 1, 2), ServiceView(service, 3, 4))
    for message, value in (
        (Heartbeat("s"), HeartbeatReply(5.0)),
        (ListServices(), views),
        (RemoveService("web"), service),
        (OpenSession, Assignments(1, True)),
    ):
        what = declaration(message) if not isinstance(message, type) else by_tag("dispatcher.open_session")
        assert what is not None
        assert decode_reply(what, encode_reply(what, value)) == value


def test_nothing_has_no_bytes() -> None:
    for message in (StopNode(), LeaveRaft(RaftId(1))):
        what = declaration(message)
        assert encode_reply(what, None) == b""
        assert decode_reply(what, b"") is None
        with pytest.raises(TypeError, match="answered with nothing"):
            encode_reply(what, "something")


def test_every_declared_message_has_a_coder() -> None:
    from swarm.model.plain import decoder, encoder

    for what in declared():
        encoder(what.cls), decoder(what.cls)
        if what.reply not in (None, type(None)):
            encoder(what.reply), decoder(what.reply)


def test_an_undeclared_message_is_not_encoded() -> None:
    @frozen
    class Secret(Request[int]):
        value: int

    with pytest.raises(TypeError, match="must not leave its node"):
        declaration(Secret(1))


@pytest.mark.parametrize(
    ("tag", "value", "about"),
    [
        ("dispatcher.heartbeat", [7], "session_id"),
        ("dispatcher.heartbeat", "text", "heartbeat"),
        ("raft.messages", [1, ["text"]], "raft.messages"),
        ("raft.messages", ["1", []], "to_member"),
        ("control.service.create", [["web", [9, []]]], "control.service.create"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(tag: str, value: object, about: str) -> None:
    what = by_tag(tag)
    assert what is not None
    with pytest.raises(SwarmError, match=about) as caught:
        decode_message(what, msgpack.packb(value))
    assert caught.value.code is ErrorCode.INVALID


@given(st.sampled_from(declared()), st.binary(max_size=40))
def test_noise_is_refused_and_breaks_nothing(what: object, noise: bytes) -> None:
    try:
        decode_message(what, noise)  # type: ignore[arg-type]
    except SwarmError as refused:
        assert refused.code is ErrorCode.INVALID


def test_too_large_an_answer_is_refused_on_the_sending_side(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("swarm.wire.codec.BODY_BYTES_MAX", 1000)
    what = declaration(RaftMessages(RaftId(1), ()))
    with pytest.raises(SwarmError, match="ask for less"):
        encode_message(what, RaftMessages(RaftId(1), (bytes(2000),)))


def test_yesterdays_bytes_read_and_so_do_tomorrows() -> None:
    """Bytes as version 0.1.0 sent them. A field may only be added at the end, with a default."""
    yesterday = {
        "dispatcher.heartbeat": ("91a773657373696f6e", Heartbeat("session")),
        "raft.messages": ("920792c4036f6e65c40374776f", RaftMessages(RaftId(7), (b"one", b"two"))),
        "control.service.list": ("90", ListServices()),
        "control.service.remove": ("91a3776562", RemoveService("web")),
        "raft.leave": ("9107", LeaveRaft(RaftId(7))),
    }
    for tag, (sent, message) in yesterday.items():
        what = by_tag(tag)
        assert what is not None
        assert decode_message(what, bytes.fromhex(sent)) == message
        longer = [*msgpack.unpackb(bytes.fromhex(sent)), *([True] if tag == "raft.leave" else [])]
        decode_message(what, msgpack.packb(longer))
    issued = by_tag("ca.join")
    assert issued is not None
    newer = msgpack.packb(["node", b"pem", b"root", "a field that is not known yet"])
    assert decode_reply(issued, newer) == IssuedCertificate(NodeId("node"), b"pem", b"root")


def test_a_task_is_small() -> None:
    task = Task(TaskId("t" * 25), ServiceId("s" * 25), 1, slot=1, node_id=NodeId("n" * 25))  # type: ignore[arg-type]
    what = by_tag("dispatcher.open_session")
    assert what is not None
    from swarm.wire.messages.dispatcher import AssignedTask

    assert len(encode_reply(what, Assignments(1, False, tasks=(AssignedTask(task),)))) < 150


def test_nothing_is_left_to_be_made_when_the_first_message_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    prepare()
    monkeypatch.setattr(plain, "_converter", None)
    for one in declared():
        plain.encoder(one.cls), plain.decoder(one.cls)
        if one.reply not in (None, type(None)):
            plain.encoder(one.reply), plain.decoder(one.reply)
