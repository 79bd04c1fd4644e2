"""What typed flags mean for a service."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.commands import parse
from swarm.commands.service_flags import SERVICE_FLAGS, On
from swarm.commands.service_spec import changed_spec, new_spec, scaled_spec
from swarm.model.specs import (
    ContainerSpec,
    GenericResource,
    Global,
    Mount,
    Platform,
    Port,
    ProcessSpec,
    Replicated,
    ReplicatedJob,
    UpdateConfig,
)
from swarm.model.states import (
    FailureAction,
    MountType,
    NetworkMode,
    Protocol,
    RestartCondition,
    UpdateOrder,
)


def process(**flags: Any) -> Any:
    return new_spec({"name": "web", **flags}, ["sleep", "9"])


def container(**flags: Any) -> Any:
    return new_spec({"name": "web", "image": "nginx:1", **flags}, [])


def test_a_command_without_an_image_is_a_process_service() -> None:
    spec = process(replicas=3, env=["A=1", "B=x=y"], workdir="/srv", user="nobody")
    assert spec.mode == Replicated(3)
    assert spec.task.runtime == ProcessSpec(("sleep", "9"), env=("A=1", "B=x=y"), dir="/srv", user="nobody")


def test_an_image_makes_a_container_service_with_what_follows_as_its_arguments() -> None:
    spec = new_spec({"name": "web", "image": "nginx:1", "entrypoint": "sh -c 'a b'", "network": "host"}, ["x"])
    assert spec.task.runtime == ContainerSpec(
        "nginx:1", command=("sh", "-c", "a b"), args=("x",), network=NetworkMode.HOST
    )


@pytest.mark.parametrize(
    ("flags", "command", "words"),
    [
        ({}, ["x"], "--name"),
        ({"name": "a"}, [], "nothing to run"),
        ({"name": "a", "mode": "globle"}, ["x"], "globle"),
        ({"name": "a", "mode": "global", "replicas": 2}, ["x"], "--replicas"),
        ({"name": "a", "max_concurrent": 2}, ["x"], "--max-concurrent"),
        ({"name": "a", "mount": ["type=bind,source=/a,target=/b"]}, ["x"], "--mount is for containers"),
        ({"name": "a", "tty": True}, ["x"], "--tty is for containers"),
        ({"name": "a", "env": ["A"]}, ["x"], "write NAME=VALUE"),
        ({"name": "a", "restart_condition": "sometimes"}, ["x"], "any"),
        ({"name": "a", "reserve_memory": "lots"}, ["x"], "--reserve-memory"),
        ({"name": "a", "stop_grace_period": "soon"}, ["x"], "--stop-grace-period"),
        ({"name": "a", "rollback_failure_action": "rollback"}, ["x"], "rollback"),
        ({"name": "a", "placement_pref": ["node.labels.zone"]}, ["x"], "spread="),
    ],
)
def test_a_mistake_is_named_with_what_is_right(flags: dict[str, Any], command: list[str], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        new_spec(flags, command)


def test_jobs_take_their_completions_from_replicas() -> None:
    assert process(mode="replicated-job", replicas=9, max_concurrent=3).mode == ReplicatedJob(3, 9)
    assert process(mode="replicated-job").mode == ReplicatedJob(1, 1)
    assert process(mode="global").mode == Global()


def test_every_policy_flag_reaches_its_field() -> None:
    spec = process(
        reserve_cpu="0.5", reserve_memory="64m", limit_cpu="2", limit_memory="1g", generic_resource=["gpu=2"],
        restart_condition="on-failure", restart_delay="1s", restart_max_attempts=4, restart_window="1m30s",
        replace_after="2s", constraint=["node.role==worker"], placement_pref=["spread=node.labels.zone"],
        platform=["linux/amd64"], replicas_max_per_node=2, publish=["8080:80/udp"],
        update_parallelism=0, update_delay="500ms", update_order="start-first", update_failure_action="rollback",
        update_max_failure_ratio="0.25", update_monitor="3s",
    )  # fmt: skip
    task = spec.task
    assert (task.resources.reservations.nano_cpus, task.resources.reservations.memory_bytes) == (500_000_000, 64 << 20)
    assert (task.resources.limits.nano_cpus, task.resources.limits.memory_bytes) == (2_000_000_000, 1 << 30)
    assert task.resources.reservations.generic == (GenericResource("gpu", 2),)
    assert task.restart.condition is RestartCondition.ON_FAILURE
    assert (task.restart.delay_s, task.restart.max_attempts, task.restart.window_s) == (1.0, 4, 90.0)
    assert spec.replace_after_s == 2.0
    assert task.placement.constraints == ("node.role==worker",)
    assert task.placement.preferences == ("node.labels.zone",)
    assert task.placement.platforms == (Platform("amd64", "linux"),)
    assert task.placement.max_replicas == 2
    assert spec.ports == (Port(target=80, published=8080, protocol=Protocol.UDP),)
    assert spec.update == UpdateConfig(0, 0.5, FailureAction.ROLLBACK, 3.0, 0.25, UpdateOrder.START_FIRST)
    assert spec.rollback is None


def test_an_update_changes_only_what_was_typed() -> None:
    before = process(env=["A=1", "B=2"], label=["x=1"], reserve_cpu="1", restart_delay="9s", update_parallelism=3)
    assert changed_spec(before, {}, []) == before
    after = changed_spec(before, {"env_add": ["B=3", "C=4"], "env_rm": ["A"], "replicas": 7}, [])
    assert after.task.runtime.env == ("B=3", "C=4")
    assert after.mode == Replicated(7)
    assert after.labels == before.labels and after.update == before.update
    assert after.task.restart == before.task.restart and after.task.resources == before.task.resources


def test_removing_what_is_not_there_is_an_error_and_not_silence() -> None:
    with pytest.raises(ValueError, match="no such entry"):
        changed_spec(process(env=["A=1"]), {"env_rm": ["B"]}, [])


@pytest.mark.parametrize("spelling", ["80", "80/tcp", "8080:80", "published=8080,target=80"])
def test_a_port_is_removed_by_its_target(spelling: str) -> None:
    before = process(publish=["8080:80", "53:53/udp"])
    assert changed_spec(before, {"publish_rm": [spelling]}, []).ports == (Port(53, 53, Protocol.UDP),)
    with pytest.raises(ValueError, match="81/tcp: there is no such entry"):
        changed_spec(before, {"publish_rm": ["81"]}, [])


def test_a_constraint_is_removed_whatever_blanks_it_has() -> None:
    before = process(constraint=["node.role == worker", "node.labels.a!=b"])
    after = changed_spec(before, {"constraint_rm": ["node.role==worker", "node.labels.a != b"]}, [])
    assert after.task.placement.constraints == ()


def test_replace_after_follows_the_cluster_again() -> None:
    before = process(replace_after="2s")
    assert (before.replace_after_s, changed_spec(before, {"replace_after": "default"}, []).replace_after_s) == (
        2.0,
        None,
    )


def test_a_cluster_volume_cannot_be_asked_for() -> None:
    """There are none: neither stale ones, nor one of several, nor published ones, nor secrets of their own."""
    with pytest.raises(ValueError, match="mount type 'cluster' is not known: bind, volume or tmpfs"):
        new_spec({"name": "web", "image": "nginx", "mount": ["type=cluster,source=group:fast,target=/data"]}, [])


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"generic_resource": ["gpu=1", "gpu=2"]}, "--generic-resource gpu=2: gpu is given twice"),
        ({"publish": ["80:80", "81:80"]}, "--publish 81:80: 80/tcp is given twice"),
        ({"env": ["A=1", "B=1", "A=2"]}, "--env A=2: A is given twice"),
    ],
)
def test_of_two_different_entries_of_one_name_none_is_dropped_in_silence(flags: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        new_spec({"name": "web", **flags}, ["true"])
    assert new_spec({"name": "web", "env": ["A=1", "A=1"]}, ["true"]).task.runtime.env == ("A=1",)  # type: ignore[union-attr]


def test_an_update_takes_a_new_command_or_image_but_no_other_runtime() -> None:
    assert changed_spec(process(), {}, ["top"]).task.runtime.command == ("top",)
    assert changed_spec(process(), {"args": "top -b"}, []).task.runtime.command == ("top", "-b")
    assert changed_spec(container(), {"image": "nginx:2"}, []).task.runtime.image == "nginx:2"
    with pytest.raises(ValueError, match="runs processes"):
        changed_spec(process(), {"image": "nginx"}, [])


def test_force_makes_the_task_spec_differ() -> None:
    before = process()
    assert changed_spec(before, {"force": True}, []).task.force_update == before.task.force_update + 1


def test_scaling_a_global_service_is_refused() -> None:
    with pytest.raises(ValueError, match="mode global"):
        scaled_spec(process(mode="global"), 3)


def test_update_flags_do_not_leak_into_the_rollback_config() -> None:
    spec = process(rollback_parallelism=4)
    assert spec.update is None
    assert spec.rollback == UpdateConfig(parallelism=4)


def test_flag_keys_are_unique_for_each_command() -> None:
    for command in (On.CREATE, On.UPDATE):
        keys = [flag.key for flag in SERVICE_FLAGS if command in flag.on]
        assert len(keys) == len(set(keys))


@pytest.mark.parametrize(
    ("text", "seconds"), [("500ms", 0.5), ("10s", 10), ("1m30s", 90), ("2h", 7200), ("3", 3), ("1.5s", 1.5), ("0", 0)]
)
def test_durations(text: str, seconds: float) -> None:
    assert parse.duration_s(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "s", "1x", "1m 30", "-1s", "1s1"])
def test_wrong_durations_show_right_ones(text: str) -> None:
    with pytest.raises(ValueError, match="1m30s"):
        parse.duration_s(text)


@pytest.mark.parametrize(
    ("text", "size"), [("1", 1), ("1k", 1024), ("64MiB", 64 << 20), ("2g", 2 << 30), ("1.5m", 3 << 19), ("7B", 7)]
)
def test_sizes(text: str, size: int) -> None:
    assert parse.size_bytes(text) == size


@given(st.text(max_size=12))
def test_no_text_crashes_a_parser(text: str) -> None:
    for parser in (
        parse.duration_s, parse.size_bytes, parse.nano_cpus, parse.port, parse.mount, parse.generic_resource,
        parse.preference, parse.platform,
    ):  # fmt: skip
        try:
            parser(text)
        except ValueError as error:
            assert str(error)


def test_ports_and_mounts_in_both_spellings() -> None:
    assert parse.port("80") == Port(80)
    assert parse.port("published=8080,target=80,protocol=udp") == Port(80, 8080, Protocol.UDP)
    assert parse.mount("type=bind,src=/a,dst=/b,readonly") == Mount("/b", "/a", MountType.BIND, read_only=True)
    assert parse.mount("type=tmpfs,target=/t,tmpfs-size=1m,tmpfs-mode=1777") == Mount(
        "/t", type=MountType.TMPFS, tmpfs_size_bytes=1 << 20, tmpfs_mode=0o1777
    )
    with pytest.raises(ValueError, match="not known"):
        parse.mount("type=bind,target=/a,colour=red")
