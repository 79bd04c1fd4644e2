"""Fast construction gives ordinary frozen objects, and stands aside for classes that need their own initialiser."""

from __future__ import annotations

import attrs
import pytest

from swarm.model.construct import constructor_of, copier_of
from swarm.model.objects import Task, TaskStatus


def fields_of(it: object) -> tuple[object, ...]:
    return tuple(getattr(it, field.name) for field in attrs.fields(type(it)))


def test_what_is_constructed_is_an_ordinary_frozen_object() -> None:
    task = Task("t1", "s1", 3, 2, "n1")
    made = constructor_of(Task)(*fields_of(task))
    assert type(made) is Task and made == task and hash(made.status) == hash(task.status)
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        made.slot = 9


def test_a_copy_differs_in_the_named_fields_only() -> None:
    task = Task("t1", "s1", 3, 2, "n1", restarts=4)
    assert copier_of(Task, "slot", "version")(task, 7, 8) == attrs.evolve(task, slot=7, version=8)
    with pytest.raises(TypeError, match="no field slott"):
        copier_of(Task, "slott")


def test_a_class_with_a_converter_or_a_validator_keeps_its_own_initialiser() -> None:
    @attrs.frozen(weakref_slot=False)
    class Careful:
        number: int = attrs.field(converter=int)

    @attrs.frozen(weakref_slot=False)
    class Checked:
        number: int = attrs.field(validator=attrs.validators.gt(0))

    assert constructor_of(Careful)("5").number == 5
    with pytest.raises(ValueError, match="must be > 0"):
        constructor_of(Checked)(0)


def test_a_class_that_can_be_referenced_weakly_works_too() -> None:
    @attrs.frozen
    class Ordinary:
        a: int
        b: int = 2

    assert constructor_of(Ordinary)(1, 3) == Ordinary(1, 3)
    assert copier_of(Ordinary, "b")(Ordinary(1), 5) == Ordinary(1, 5)
    assert constructor_of(TaskStatus)(*fields_of(TaskStatus())) == TaskStatus()
