"""Weight norm on any Python object, in each room: its class, removal, and what is refused."""

import abc
import dataclasses
import gc
import pickle
import types
import weakref

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from nbopt.compat import paddle
from nbopt.compat.jittor import weightnorm as jittor
from nbopt.errors import ParameterError
from tests import compat
from tests.compat import ROOMS, Linear, assert_current, assert_untouched, snapshot
from tests.kernels import bits

# --- the class -------------------------------------------------------------------------------------


def test_the_class_looks_like_the_original(room):
    module, other = room.norm(Linear()), room.norm(Linear(6, 2))
    cls = type(module)
    assert isinstance(module, Linear)
    assert issubclass(cls, Linear)
    names = ("__name__", "__qualname__", "__module__", "__doc__")
    assert [getattr(cls, name) for name in names] == [getattr(Linear, name) for name in names]
    assert repr(module).startswith("<tests.compat.Linear object")
    assert type(other) is cls
    assert type(Linear()) is Linear
    assert set(vars(Linear)) & {"weight", "weight_g", "__reduce_ex__"} == set()
    assert "weight" in dir(module)


def test_instances_do_not_see_each_other(room):
    one, two, plain = room.norm(Linear()), room.norm(Linear()), Linear()
    one.weight_g *= 2
    assert_allclose(one.weight, 2 * two.weight, rtol=1e-6)
    assert_allclose(two.weight, plain.weight, rtol=1e-11)
    room.remove(one)
    assert_current(two)
    plain.weight[0] = 0.0
    assert type(plain) is Linear


def test_methods_properties_and_super_still_work(room):
    module = room.norm(compat.Wide())
    x = np.eye(5)
    before = module.execute(x)
    module.weight_g *= 3
    assert_allclose(module.execute(x), 3 * before, rtol=1e-6)


def test_attributes_are_set_through_the_class_of_the_object(room):
    module = compat.Logging()
    module.log.clear()
    room.norm(module)
    assert sorted(module.log) == ["weight_g", "weight_v"]


def test_abstract_and_generic_classes(room):
    class Base(abc.ABC):
        @abc.abstractmethod
        def run(self): ...

    class Model(Base):
        def __init__(self):
            self.weight = np.eye(2)

        def run(self):
            return self.weight

    module = room.norm(Model())
    assert isinstance(module, Base)
    assert_allclose(module.run(), np.eye(2), rtol=1e-11)


def test_a_class_without_weak_references(room):
    class Slim:
        __slots__ = ("__dict__",)

    module = Slim()
    module.weight = np.eye(2)
    assert_allclose(room.norm(module).weight, np.eye(2), rtol=1e-11)
    assert type(room.remove(module)) is Slim


def test_the_order_of_application_leaves_no_trace():
    modules = Linear(), Linear()
    for module, names in zip(modules, (("weight", "bias"), ("bias", "weight")), strict=True):
        module.bias += 1.0
        for name in names:
            paddle.weight_norm(module, name)
    assert type(modules[0]) is type(modules[1])


def test_a_class_ends_with_its_objects(room):
    class Model:
        def __init__(self):
            self.weight = np.eye(2)

    seen = weakref.ref(type(room.norm(Model()))), weakref.ref(Model)
    del Model
    gc.collect()
    assert [ref() for ref in seen] == [None, None]


# --- removal ---------------------------------------------------------------------------------------


def test_removal_leaves_a_plain_object(room):
    module = room.norm(Linear())
    module.weight_g *= 1.5
    expected = module.weight
    assert room.remove(module) is module
    assert type(module) is Linear
    assert set(vars(module)) == {"weight", "bias"}
    assert type(module.weight) is np.ndarray
    assert bits(module.weight) == bits(expected)
    module.weight[0, 0] = 5.0
    module.weight += 1.0
    assert module.weight[0, 0] == 6.0
    del module.weight
    assert not hasattr(module, "weight")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_removed_and_applied_again_it_is_the_same(room, dtype):
    module = room.norm(Linear(30, 50, dtype))
    module.weight_g[...] = np.random.default_rng(0).standard_normal(module.weight_g.shape)
    weight = room.remove(module).weight
    exact = room.module is jittor or dtype == "float32"  # Paddle's epsilon shows in float64
    for _ in range(3):
        room.norm(module)
        assert_allclose(module.weight, weight, rtol=0 if exact else 1e-9)
        assert_array_equal(module.weight_v, weight, strict=True)
        weight = room.remove(module).weight


def test_removing_twice_is_an_error(room):
    module = room.remove(room.norm(Linear()))
    before = snapshot(module)
    with pytest.raises(ValueError, match="weight_norm of 'weight' not found in Linear"):
        room.remove(module)
    assert_untouched(module, before)


@pytest.mark.parametrize("name", ["bias", "nothing", "weight_g", ""])
def test_removing_another_name_is_an_error(room, name):
    module = room.norm(Linear())
    with pytest.raises(ValueError, match=r"weight_norm of .* not found in Linear"):
        room.remove(module, name)
    assert_current(module)


def test_one_room_does_not_remove_what_the_other_applied():
    for mine, other in (("jittor", "paddle"), ("paddle", "jittor")):
        module = ROOMS[mine].norm(Linear())
        with pytest.raises(ValueError, match="not found"):
            ROOMS[other].remove(module)
        assert_current(module)


def test_removal_with_a_part_that_does_not_fit_changes_nothing(room):
    module = room.norm(Linear())
    module.weight_g = np.ones(9)
    before = snapshot(module)
    with pytest.raises(ParameterError, match="weight_g"):
        room.remove(module)
    assert_untouched(module, before)


# --- several attributes ----------------------------------------------------------------------------


def test_several_attributes_of_one_object():
    module = compat.Record(np.eye(3) + 1.0)
    module.query, module.key = np.ones((2, 3)), np.full((3, 2), 2.0)
    expected = {name: getattr(module, name).copy() for name in ("weight", "query", "key")}
    paddle.weight_norm(module, "query")
    jittor.weight_norm(module, "weight", -1)
    paddle.weight_norm(module, "key", None)
    assert type(module).__bases__ == (compat.Record,)
    for name, value in expected.items():
        assert_allclose(getattr(module, name), value, rtol=1e-11)
    module.query_g *= 2
    assert_allclose(module.query, 2 * expected["query"], rtol=1e-11)
    assert_allclose(module.key, expected["key"], rtol=1e-11)
    again = pickle.loads(pickle.dumps(module))
    assert_array_equal(again.query, module.query)
    paddle.remove_weight_norm(module, "query")
    assert not hasattr(module, "query_g")
    assert hasattr(module, "__fhook2__")
    jittor.remove_weight_norm(module)
    assert_allclose(module.key, expected["key"], rtol=1e-11)
    paddle.remove_weight_norm(module, "key")
    assert type(module) is compat.Record
    assert set(vars(module)) == {"weight", "rate", "query", "key"}


@pytest.mark.parametrize("part", ["weight_v", "weight_g"])
def test_parts_of_weight_norm_cannot_have_it(part):
    module = paddle.weight_norm(Linear())
    before = snapshot(module)
    with pytest.raises(ParameterError, match=f"{part} of Linear is itself a part"):
        paddle.weight_norm(module, part)
    assert_untouched(module, before)


# --- what is refused -------------------------------------------------------------------------------


def test_applied_twice(room):
    module = room.norm(Linear())
    before = snapshot(module)
    for other in ROOMS.values():
        with pytest.raises(RuntimeError, match="two weight_norm hooks"):
            other.norm(module)
    assert_untouched(module, before)


class Property:
    def __init__(self):
        self._weight = np.eye(2)

    @property
    def weight(self):
        return self._weight


class OfTheClass:
    weight = np.eye(2)


class Slot:
    __slots__ = ("__dict__", "weight")

    def __init__(self):
        self.weight = np.eye(2)


class SlotsAlone:
    __slots__ = ("weight",)

    def __init__(self):
        self.weight = np.eye(2)


@dataclasses.dataclass(frozen=True)
class Frozen:
    weight: np.ndarray = dataclasses.field(default_factory=lambda: np.eye(2))


class NoMore:
    """Refuses the second new attribute."""

    def __init__(self):
        vars(self)["weight"] = np.eye(2)

    def __setattr__(self, name, value):
        if name == "weight_g":
            raise AttributeError("no weight_g here")
        super().__setattr__(name, value)


class NoChildren:
    def __init__(self):
        self.weight = np.eye(2)

    def __init_subclass__(cls, *, label):
        pass


class Occupied(Linear):
    weight_g = None


OBJECTS = {
    "a property": (Property, TypeError, "weight of Property is a property, a slot or"),
    "an attribute of the class": (OfTheClass, TypeError, "attribute of the class"),
    "a slot": (Slot, TypeError, "weight of Slot is a property, a slot or"),
    "slots alone": (SlotsAlone, TypeError, "got SlotsAlone; .* __slots__"),
    "frozen": (Frozen, dataclasses.FrozenInstanceError, "weight_v"),
    "one more attribute": (NoMore, AttributeError, "no weight_g here"),
    "no subclasses": (NoChildren, TypeError, "label"),
    "an attribute in the way": (Occupied, ParameterError, "Occupied has an attribute weight_g"),
    "not of Python": (
        lambda: types.SimpleNamespace(weight=np.eye(2)),
        TypeError,
        "written in Python, got SimpleNamespace: derive a class",
    ),
    "a class": (lambda: OfTheClass, TypeError, "got type; classes"),
}


@pytest.mark.parametrize(("make", "error", "words"), OBJECTS.values(), ids=OBJECTS)
def test_objects_that_cannot_have_weight_norm_stay_as_they_are(room, make, error, words):
    module = make()
    attributes = dict(getattr(module, "__dict__", {}))
    with pytest.raises(error, match=words):
        room.norm(module)
    assert dict(getattr(module, "__dict__", {})) == attributes
    assert type(module) is type(make())
    assert isinstance(module, type) or np.shape(module.weight) in ((2, 2), (4, 3))


def test_a_python_module_is_refused(room):
    module = types.ModuleType("model")
    module.weight = np.eye(2)
    with pytest.raises(TypeError, match="got module; classes, modules"):
        room.norm(module)


@pytest.mark.parametrize("array", [np.eye(2), [[1.0]], (1.0,)], ids=["array", "list", "tuple"])
def test_an_array_in_place_of_an_object_points_to_the_function_for_arrays(room, array):
    words = rf"an object and the name .*got {type(array).__name__}; .*nbopt\.weight_norm\(v, g, dim\)"
    for name in ("weight", np.ones(2)):
        with pytest.raises(TypeError, match=words):
            room.module.weight_norm(array, name, 0)


WEIGHTS = {
    "a list": ([[1.0]], TypeError, "got list"),
    "None": (None, TypeError, "got NoneType"),
    "integers": (np.ones((2, 2), int), TypeError, "ndarray of int64"),
    "float16": (np.ones((2, 2), np.float16), TypeError, "ndarray of float16"),
    "complex": (np.ones((2, 2), complex), TypeError, "ndarray of complex128"),
    "big-endian": (np.ones((2, 2), ">f8"), TypeError, "ndarray of >f8"),
    "no axis": (np.array(1.0), ParameterError, "axis|dim"),
    "norm beyond float32": (np.full((2, 2), 3e38, np.float32), ParameterError, "range of float32"),
}


@pytest.mark.parametrize(("weight", "error", "words"), WEIGHTS.values(), ids=WEIGHTS)
def test_weights_that_cannot_be_normed(room, weight, error, words):
    module = Linear()
    module.weight = weight
    with pytest.raises(error, match=words) as caught:
        room.norm(module)
    assert "weight" in str(caught.value)
    assert module.weight is weight
    assert type(module) is Linear


@pytest.mark.parametrize("dim", ["0", 0.0, True, (0,), [0], np.float64(0.0)], ids=repr)
def test_dims_that_are_no_integers(room, dim):
    module = Linear()
    with pytest.raises(TypeError, match="dim must be an integer or None"):
        room.module.weight_norm(module, "weight", dim)
    assert type(module) is Linear


@pytest.mark.parametrize("dim", [2, -3, 100, np.int8(-128)])
def test_dims_out_of_range(room, dim):
    module = Linear()
    with pytest.raises(ParameterError, match=rf"-2 <= dim < 2 for weight .* got {dim}"):
        room.module.weight_norm(module, "weight", dim)
    assert set(vars(module)) == {"weight", "bias"}


@pytest.mark.parametrize("name", [3, None, b"weight"])
def test_names_that_are_no_strings(room, name):
    with pytest.raises(TypeError, match="str"):
        room.norm(Linear(), name)


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0,)], ids=str)
def test_empty_weights(room, shape):
    module = compat.Record(np.ones(shape))
    room.norm(module)
    assert module.weight.shape == shape
    assert_array_equal(room.remove(module).weight, np.ones(shape))
