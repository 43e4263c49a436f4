"""The API reference: every public object says what it is and what it takes, and shows it.

The examples are run as doctests. Here every object is visited that a user reaches from `nbopt`: its names,
those of its public modules, and the methods and properties of their classes.
"""

import ast
import builtins
import doctest
import inspect
import re

import pytest

import nbopt as nb
from tests.kernels import ROOT

PARAMETERS, EXAMPLES = "\nParameters\n----------\n", "\nExamples\n--------\n"


def walk(module, path):
    """Public names by where they are reached, modules and what is in them too."""
    for name in module.__all__:
        value = getattr(module, name)
        yield f"{path}.{name}", value
        if inspect.ismodule(value):
            yield from walk(value, f"{path}.{name}")


def members(cls):
    """Public methods and properties, and the call, that the package defines, here or in a base class."""
    for name in dir(cls):
        owner = next((base for base in cls.__mro__ if name in vars(base)), type)
        kind = type(vars(owner).get(name))
        ours = owner.__module__.partition(".")[0] == "nbopt"
        if ours and kind in SHOWN and (name == "__call__" or not name.startswith("_")):
            yield name, getattr(cls, name)


SHOWN = {type(walk), property, classmethod, staticmethod}
ROOMS = {name: getattr(nb, name) for name in ("jax", "scipy", "torch")}  # for other libraries
PUBLIC = dict(walk(nb, "nbopt"))
for _name, _room in ROOMS.items():
    PUBLIC |= dict(walk(_room, f"nbopt.{_name}"))
MODULES = {"nbopt": nb} | {name: value for name, value in PUBLIC.items() if inspect.ismodule(value)}
NAMES = {name: value for name, value in PUBLIC.items() if name not in MODULES}  # classes and functions
CLASSES = {name: value for name, value in NAMES.items() if inspect.isclass(value)}
OBJECTS = NAMES | {f"{path}.{name}": value for path, cls in CLASSES.items() for name, value in members(cls)}

every_object = pytest.mark.parametrize("name", sorted(OBJECTS))


def arguments(value):
    """Names of the arguments, of a class those of its constructor."""
    if isinstance(value, property):
        return []
    made_here = nb.Parameter | nb.NboptError | Warning  # by the package
    if inspect.isclass(value) and issubclass(value, made_here):
        return []
    return [name for name in inspect.signature(value).parameters if name not in ("self", "unknown")]


def explained(text):
    """Names of the arguments that a docstring has an entry for."""
    section = text.partition(PARAMETERS)[2].partition("\n\n")[0]
    heads = re.findall(r"^([\w*].*?)(?: : .*)?$", section, re.MULTILINE)
    return [name.strip("*") for head in heads for name in head.split(", ")]


def unbound(source):
    """Names that a piece of code uses, and neither binds nor imports."""
    used, bound = set(), set(dir(builtins))
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Name(ctx=ast.Load()):
                used.add(node.id)
            case ast.Name():
                bound.add(node.id)
            case ast.alias():
                bound.add((node.asname or node.name).partition(".")[0])
            case ast.FunctionDef() | ast.ClassDef() | ast.ExceptHandler(name=str()):
                bound.add(node.name)
            case ast.arg():
                bound.add(node.arg)
    return used - bound


# --- docstrings -----------------------------------------------------------------------------------


def test_everything_is_visited():
    """Methods, properties, what is inherited, and the call of a clip; nothing private, nothing of Python."""
    assert {
        "nbopt.norm",
        "nbopt.ClipGradByNorm.__call__",
        "nbopt.Optimizer.step",
        "nbopt.Optimizer.grad_norm",
        "nbopt.optimizer.Momentum.set_lr",
        "nbopt.Parameter.trainable",
        "nbopt.ParameterBuffer.from_arrays",
        "nbopt.ParameterBuffer.set_grads",
        "nbopt.WeightNormParamAttr.renamed",
        "nbopt.errors.DeviceError",
        "nbopt.initializer.KaimingNormal.draw",
        "nbopt.scipy.momentum",
    } <= set(OBJECTS)
    assert "nbopt.ParameterBuffer.keys" not in OBJECTS
    assert {name for name in OBJECTS if "._" in name} == {
        *(f"nbopt.ClipGradBy{kind}.__call__" for kind in ("Value", "Norm", "GlobalNorm")),
        *(f"nbopt.optimizer.lr.{kind}.__call__" for kind in nb.optimizer.lr.__all__),
        *(f"nbopt.callbacks.{kind}.__call__" for kind in nb.callbacks.__all__),
    }


@pytest.mark.parametrize("name", MODULES)
def test_modules_say_what_they_are(name):
    assert inspect.getdoc(MODULES[name])


@every_object
def test_summary(name):
    """One line, a sentence, set apart from the rest."""
    first, _, rest = inspect.getdoc(OBJECTS[name]).partition("\n")
    assert first[0].isupper()
    assert first[-1] == "."
    assert not rest or rest[0] == "\n"


@every_object
def test_arguments(name):
    """What is taken is explained, and nothing else; a single argument may be left to the summary."""
    taken, found = arguments(OBJECTS[name]), explained(inspect.getdoc(OBJECTS[name]))
    assert sorted(found) == sorted(taken) or (not found and len(taken) == 1)


@every_object
def test_example(name):
    """There is one, and it can be pasted: what it uses, it imports."""
    text = inspect.getdoc(OBJECTS[name])
    assert text.count(EXAMPLES) == 1
    lines = [e.source for e in doctest.DocTestParser().get_examples(text.partition(EXAMPLES)[2])]
    assert len(lines) > 1
    assert unbound("".join(lines)) == set()


def test_the_readers_of_docstrings():
    text = "A sum.\n\nParameters\n----------\na : int\n    Of b : c.\nd, *e\n    F, g.\n\nReturns\n-------\nh"
    assert explained(text) == ["a", "d", "e"]
    assert explained("A sum.") == []
    assert arguments(nb.ParameterBuffer.to_vector) == ["what", "space", "frozen"]


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("import numpy as np\nfrom os import path\nx = np.ones(3), path", set()),
        ("def f(a):\n    return a + x", {"x"}),
        ("try:\n    y\nexcept E as e:\n    print(e)", {"y", "E"}),
        ("[np.sin(i) for i in range(3)]", {"np"}),
    ],
)
def test_the_reader_of_examples(source, names):
    assert unbound(source) == names


# --- pages ----------------------------------------------------------------------------------------


def entries(page, directive):
    """The lines of all directives of one kind on a page, without their options."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    blocks = re.findall(rf"^\.\. {directive}::\n((?:(?:   .*)?\n)+)", text, re.MULTILINE)
    lines = [line.strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line and line[0] != ":"]


def test_the_reference_lists_what_exists():
    """Each class and function once, by one of the names that reach it."""
    listed = [f"nbopt.{name}" for name in entries("api.rst", "autosummary")]
    assert set(listed) <= set(NAMES)
    found = [NAMES[name] for name in listed]
    assert len(found) == len(set(found))
    assert set(found) == set(NAMES.values())


@pytest.mark.parametrize("index", ["index.rst", "howto/index.rst"])
def test_every_page_is_in_an_index(index):
    pages = {path.stem for path in (ROOT / "docs" / index).parent.glob("*.rst")}
    included = {"index", "behaviours-table", "performance-table"}
    assert {name for name in entries(index, "toctree") if "/" not in name} == pages - included


def test_every_test_that_the_contract_names_exists():
    text = (ROOT / "docs" / "contract.rst").read_text(encoding="utf-8")
    named = set(re.findall(r"``(tests/[^`]+)``", text))
    assert len(named) > 10
    assert {path for path in named if not (ROOT / path).exists()} == set()
