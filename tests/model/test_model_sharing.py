"""Equal specs are one object in the store, however often they were made."""

from __future__ import annotations

from attrs import evolve

from swarm.model.change_codec import decode_groups, decode_objects, encode_groups, encode_objects
from swarm.model.changes import Create, Group, Update
from swarm.model.objects import Revision, Service
from swarm.model.sharing import KEPT_MAX, SharedSpecs
from swarm.model.specs import ContainerSpec, ProcessSpec, Replicated, ServiceSpec, TaskSpec
from swarm.model.store import Store


def declared(id: str, spec: ServiceSpec) -> Group:
    return Create(Service(id, spec)), Create(Revision(id, 1, spec))


def spec(name: str, *command: str) -> ServiceSpec:
    return ServiceSpec(name, TaskSpec(ProcessSpec(command)), Replicated(2))


def follower(*groups: Group) -> Store:
    """A store that read its entries off the wire: every object was made anew."""
    store = Store()
    for index, group in enumerate(groups, start=1):
        results, _ = store.apply(decode_groups(encode_groups([group])), index)
        assert results == [None]
    return store


def test_a_follower_keeps_one_spec_for_a_service_and_its_revision() -> None:
    store = follower(declared("a", spec("web", "serve")))
    assert store.revision("a", 1).spec is store.service("a").spec
    later = evolve(store.service("a"), spec=spec("web", "serve", "again"), revision=2)
    group = decode_groups(encode_groups([(Create(Revision("a", 2, later.spec)), Update(later))]))
    store.apply(group, 2)
    assert store.service("a").spec == later.spec
    assert store.revision("a", 2).spec is store.service("a").spec
    assert store.revision("a", 1).spec == spec("web", "serve")


def test_services_that_ask_the_same_share_what_they_ask() -> None:
    store = follower(*(declared(name, spec(name, "serve")) for name in "ab"), declared("c", spec("c", "other")))
    a, b, c = (store.service(id).spec for id in "abc")
    assert a.task is b.task
    assert (a.name, b.name) == ("a", "b")
    assert c.task == spec("c", "other").task


def test_mappings_do_not_count_for_the_hash_and_do_for_equality() -> None:
    one, other = (
        ServiceSpec("x", TaskSpec(ContainerSpec("image", labels={"tier": tier}, sysctls={"a": "b"}))) for tier in "pq"
    )
    assert hash(one.task) == hash(other.task)
    store = follower(declared("a", one), declared("b", evolve(other, name="y")))
    assert store.service("a").spec == one
    assert store.service("b").spec.task == other.task


def test_a_restored_store_shares_as_well() -> None:
    source = follower(*(declared(name, spec(name, "serve")) for name in "ab"))
    store = Store()
    store.restore(decode_objects(encode_objects(source.dump())), 2)
    assert store.dump() == source.dump()
    assert store.service("a").spec.task is store.service("b").spec.task
    assert store.revision("b", 1).spec is store.service("b").spec


def test_what_is_remembered_has_a_limit() -> None:
    shared = SharedSpecs()
    first = shared.share(spec("web", "0"), None)
    for number in range(1, KEPT_MAX + 1):
        shared.share(spec("web", str(number)), None)
    again = shared.share(spec("web", "0"), None)
    assert again == first
    assert shared.share(spec("api", "0"), None).task is again.task
