"""Copies and pickles of objects under weight norm, in each room."""

import copy
import dataclasses
import pickle

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from tests import compat
from tests.compat import Linear, assert_current
from tests.kernels import bits, python

# --- copies ----------------------------------------------------------------------------------------

PICKLES = {f"pickle {n}": lambda m, n=n: pickle.loads(pickle.dumps(m, n)) for n in range(6)}
DEEP = {"deepcopy": copy.deepcopy} | PICKLES
CLASSES = [Linear, compat.Wide, compat.Logging, compat.OwnReduce, compat.OwnCopy, compat.NewArguments]


@pytest.mark.parametrize("duplicate", DEEP.values(), ids=DEEP)
@pytest.mark.parametrize("cls", CLASSES)
def test_duplicates_are_equal_and_independent(room, cls, duplicate):
    module = room.norm(cls())
    module.weight_g *= 2
    other = duplicate(module)
    assert type(other) is type(module)
    assert set(vars(other)) - {"weight"} == set(vars(module))
    for name in ("weight", "weight_g", "weight_v", "bias"):
        assert bits(getattr(other, name)) == bits(getattr(module, name))
    before = module.weight
    other.weight_g *= 3
    assert_allclose(other.weight, 3 * before, rtol=1e-6)
    assert_array_equal(module.weight, before)
    room.remove(other)
    assert type(other) is cls
    assert_current(module)


@pytest.mark.parametrize("cls", [Linear, compat.OwnCopy])
def test_a_shallow_copy_shares_arrays_as_always(room, cls):
    module = room.norm(cls())
    other = copy.copy(module)
    assert other.weight_v is module.weight_v
    module.weight_g *= 2
    assert_array_equal(other.weight, module.weight)
    room.remove(other)
    assert type(module) is not cls
    assert_current(module)


@pytest.mark.parametrize("duplicate", [copy.copy, *DEEP.values()], ids=["copy", *DEEP])
@pytest.mark.parametrize("cls", [compat.OwnState, compat.OwnDict])
def test_classes_that_pickle_the_weight_itself_keep_it(room, cls, duplicate):
    module = room.norm(cls())
    module.weight_g *= -2
    other = duplicate(module)
    assert type(other) is type(module)
    assert_allclose(other.weight, module.weight, rtol=1e-6)
    other.weight_g *= 2
    assert_current(other)
    room.remove(other)
    assert set(vars(other)) == {"weight", "bias"}


@pytest.mark.parametrize("cls", [compat.OwnState, compat.OwnDict])
def test_a_weight_that_pickle_brought_may_be_replaced_or_removed_unread(room, cls):
    module = room.norm(cls())
    weight = module.weight
    removed, replaced = pickle.loads(pickle.dumps(module)), pickle.loads(pickle.dumps(module))
    room.remove(removed)
    assert_allclose(removed.weight, weight, rtol=1e-6)
    assert removed.weight.flags.writeable
    with pytest.raises(ValueError, match="keeps its shape"):
        replaced.weight = np.ones(7, "float32")
    replaced.weight = 2 * weight
    assert_allclose(replaced.weight, 2 * weight, rtol=1e-6)
    assert "weight" not in vars(replaced)


def test_a_class_derived_from_the_derived_one_is_copied_as_any_other(room):
    class Derived(type(room.norm(Linear()))):
        pass

    module = Derived()
    before = module.weight
    for duplicate in (copy.copy, copy.deepcopy):
        assert_allclose(duplicate(module).weight, before, rtol=1e-6)


def test_cycles(room):
    module = Linear()
    module.me, module.peers = module, [module]
    room.norm(module)
    for duplicate in (copy.deepcopy, *PICKLES.values()):
        other = duplicate(module)
        assert other.me is other
        assert other.peers[0] is other
        assert_array_equal(other.weight, module.weight)


def test_two_names_of_one_object_stay_one(room):
    module = room.norm(Linear())
    one, two = pickle.loads(pickle.dumps([module, module]))
    assert one is two


def test_replace_of_a_dataclass(room):
    module = room.norm(compat.Record(np.eye(2, dtype=np.float32) * 3))
    other = dataclasses.replace(module, rate=0.25)
    assert (other.rate, dataclasses.fields(other)[0].name) == (0.25, "weight")
    assert_array_equal(other.weight, module.weight)
    assert not np.shares_memory(other.weight_v, module.weight_v)
    assert_array_equal(dataclasses.asdict(module)["weight"], module.weight)


READER = """
import pickle, sys
with open(sys.argv[1], "rb") as file:
    module, remove = pickle.load(file)
before = module.weight.copy()
module.weight_g *= 2
print(type(module).__name__, bool(abs(module.weight - 2 * before).max() < 1e-12))
remove(module)
print(type(module) is type(type(module)()), sorted(vars(module)), "nbopt.compat" in sys.modules)
"""


def test_another_process_reads_a_pickle(room, tmp_path):
    path = tmp_path / "module.pickle"
    path.write_bytes(pickle.dumps((room.norm(Linear()), room.module.remove_weight_norm)))
    lines = python("-c", READER, str(path)).splitlines()
    assert lines == ["Linear True", "True ['bias', 'weight'] True"]
