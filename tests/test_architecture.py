"""The house rules, read from the source: who may import whom, sizes of files, and a light first import."""

import ast
import importlib
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import nbopt as nb
from tests.kernels import ROOT, python

PACKAGE = Path(nb.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
LONGEST = 450

ids = {"ids": lambda path: path.relative_to(PACKAGE).as_posix()}
every_file = pytest.mark.parametrize("path", FILES, **ids)


def module_name(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


NAMES = {module_name(path): path for path in FILES}


def imports(path, typing_too=False):
    """Every module that a file imports, also inside functions; without those for type checkers alone."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING" and not typing_too:
            node.body.clear()
    package = module_name(path).split(".")
    if path.name != "__init__.py":
        package.pop()
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                is_module = inner in NAMES or (base == "nbopt" and alias.name not in vars(nb))
                is_module = is_module or inner == "numba.cuda"
                found.add(inner if is_module else base)
    return found


def inside(name, *rooms):
    return any(name == room or name.startswith(f"{room}.") for room in rooms)


def of_package(path):
    return {name for name in imports(path) if inside(name, "nbopt")}


def room(*rooms):
    return [path for name, path in NAMES.items() if inside(name, *rooms)]


# --- who may import whom --------------------------------------------------------------------------


def test_imports_are_found():
    """The reader of sources sees what is there, in functions too, and not what only type checkers see."""
    assert "nbopt.kernels.tables" in imports(PACKAGE / "norms.py")
    assert "nbopt.kernels.cpu.arrays" in imports(PACKAGE / "norms.py")
    assert "nbopt.kernels.cpu.run" in set().union(*(imports(path) for path in room("nbopt.optimizer")))
    assert "nbopt.buffer" not in imports(PACKAGE / "__init__.py")
    assert "nbopt.buffer" in imports(PACKAGE / "__init__.py", typing_too=True)


@pytest.mark.parametrize("path", room("nbopt.kernels"), **ids)
def test_kernels_know_nothing_of_the_rest(path):
    """Only one name comes from outside: the version, a part of every fingerprint."""
    outside = {name for name in of_package(path) if not inside(name, "nbopt.kernels")}
    assert outside <= {"nbopt"}
    tree = ast.parse(path.read_text(encoding="utf-8"))
    used = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "nbopt"
    }
    assert used <= {"__version__"}


ABOVE_OPTIMIZERS = {
    "__init__.py",
    "__main__.py",
    "bench.py",
    "info.py",
    "minimizing.py",
    "plot.py",
    "testing.py",
    "warmup.py",
}
PARAMETERS = [path for path in sorted(PACKAGE.glob("*.py")) if path.name not in ABOVE_OPTIMIZERS]
PARAMETERS += room("nbopt.gradient")
HIGH_ROOMS = [
    "nbopt.optimizer",
    "nbopt.averaging",
    "nbopt.checkpoint",
    "nbopt.callbacks",
    "nbopt.minimizing",
    "nbopt.testing",
    "nbopt.demo",
]


@pytest.mark.parametrize("path", PARAMETERS, **ids)
def test_parameters_know_nothing_of_optimizers(path):
    assert not [name for name in of_package(path) if inside(name, *HIGH_ROOMS)]


@pytest.mark.parametrize("path", room("nbopt.optimizer", "nbopt.averaging", "nbopt.compat"), **ids)
def test_what_is_saved_knows_nothing_of_files(path):
    """Nor do parameters and kernels, by the rules above."""
    assert not [name for name in of_package(path) if inside(name, "nbopt.checkpoint", "nbopt.testing")]


@pytest.mark.parametrize("path", room("nbopt.checkpoint"), **ids)
def test_nothing_in_a_checkpoint_is_run(path):
    modules = {"pickle", "marshal", "shelve", "importlib", "ctypes", "subprocess"}
    assert not [name for name in imports(path) if inside(name, *modules)]
    assert not {"eval", "exec", "__import__"} & set(words(path))


LOWEST_ROOMS = {
    "layout.py": {"nbopt.kernels.tables"},
    "errors.py": set(),
    "_validation.py": {"nbopt.errors"},
    "_state_dict.py": {"nbopt._validation", "nbopt.errors"},
    "_calls.py": {"nbopt._validation"},
    "packages.py": {"nbopt.errors"},
    "strict.py": {"nbopt._validation"},
}


@pytest.mark.parametrize("name", LOWEST_ROOMS)
def test_the_lowest_rooms_stand_alone(name):
    """Geometry knows the columns, checks know the errors, and errors know nothing."""
    assert of_package(PACKAGE / name) <= LOWEST_ROOMS[name]


def test_averages_know_nothing_of_optimizers():
    for path in room("nbopt.averaging"):
        assert not [name for name in of_package(path) if inside(name, "nbopt.optimizer")], path


@every_file
def test_nothing_imports_the_command_line(path):
    if not inside(module_name(path), "nbopt.__main__", "nbopt.demo"):
        assert not [name for name in of_package(path) if inside(name, "nbopt.__main__", "nbopt.demo")]


def test_guests_use_public_names_alone():
    """What imitates or serves another library stands on what every user has."""
    for path in room("nbopt.compat", "nbopt.interop"):
        others = {n for n in of_package(path) if not inside(n, "nbopt.compat", "nbopt.interop")}
        assert not {n for n in others if inside(n, "nbopt.kernels") or "._" in n}, path


@pytest.mark.parametrize("path", room("nbopt.callbacks", "nbopt.interop"), **ids)
def test_what_a_user_could_have_written(path):
    """Public names, errors and the checks of arguments; nothing private of any other object."""
    others = {name for name in of_package(path) if not inside(name, "nbopt.callbacks", "nbopt.interop")}
    checks = {"nbopt._calls", "nbopt._validation"} if inside(module_name(path), "nbopt.callbacks") else set()
    assert others <= {"nbopt", "nbopt.errors", "nbopt.packages", *checks}
    tree = ast.parse(path.read_text(encoding="utf-8"))
    private = {
        ast.unparse(node)
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and re.match("_[^_]", node.attr)
        and ast.unparse(node.value) != "self"
    }
    of_tuples = {"Row._fields", "entry._asdict", "node._fields"}  # public there
    of_torch = {"inside._parameters", "tensor._version", "torch._foreach_copy_"}
    assert private <= {*of_tuples, *of_torch, "params._link"}


# --- one place for each tool ----------------------------------------------------------------------


def words(path):
    """Names, attributes and strings that a file uses, apart from docstrings."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.alias):
            yield from node.name.split(".")


@every_file
def test_only_the_cpu_backend_says_prange(path):
    if not inside(module_name(path), "nbopt.kernels.cpu"):
        assert "prange" not in words(path)


@every_file
def test_only_intrinsics_use_llvmlite(path):
    if module_name(path) != "nbopt.kernels.intrinsics":
        assert not [name for name in imports(path, typing_too=True) if inside(name, "llvmlite")]


@every_file
def test_only_a_cuda_backend_may_import_numba_cuda(path):
    if not inside(module_name(path), "nbopt.kernels.cuda"):
        assert not [
            name for name in imports(path, typing_too=True) if inside(name, "numba.cuda", "numba_cuda")
        ]


@every_file
def test_only_kernels_import_numba(path):
    if not inside(module_name(path), "nbopt.kernels"):
        assert not [name for name in imports(path) if inside(name, "numba")]


@every_file
def test_fastmath_is_contraction_alone(path):
    source = path.read_text(encoding="utf-8")
    assert source.count("fastmath") == source.count('["fastmath"] = {"contract"}')


def test_the_places_above_exist():
    assert "prange" in words(PACKAGE / "kernels" / "cpu" / "step.py")
    assert "llvmlite" in imports(PACKAGE / "kernels" / "intrinsics.py")
    assert "numba.cuda" in imports(PACKAGE / "kernels" / "cuda" / "device.py")


# --- files ----------------------------------------------------------------------------------------


@every_file
def test_a_file_can_be_read_in_one_sitting(path):
    lines = path.read_text(encoding="utf-8").count("\n")
    assert lines <= LONGEST


@every_file
def test_a_file_says_what_it_is(path):
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))


# --- the first import -----------------------------------------------------------------------------

HEAVY = [
    "numba",
    "llvmlite",
    "numpy",
    "scipy",
    "torch",
    "jax",
    "matplotlib",
    "tqdm",
    "sklearn",
    "safetensors",
]


@pytest.mark.parametrize(
    "home", ["optimizer.SGD", "optimizer.lr.StepDecay", "regularizer.L2Decay", "initializer.Assign"]
)
def test_a_class_that_is_looked_for_in_the_package_is_told_its_place(home):
    with pytest.raises(AttributeError, match=f"it is nbopt.{home}$"):
        getattr(nb, home.rpartition(".")[2])


@pytest.mark.parametrize("name", ["Sgd", "rates", "sgd"])
def test_a_name_that_nothing_has(name):
    with pytest.raises(AttributeError, match=f"module 'nbopt' has no attribute '{name}'$"):
        getattr(nb, name)


LISTED = "import sys; import nbopt; {}; sys.stdout.write(' '.join(sorted(sys.modules)))"


def modules(then="pass"):
    """What is in sys.modules after the import of the package and one more statement."""
    return set(python("-c", LISTED.format(then)).split())


def test_the_import_is_light():
    loaded = modules()
    assert "nbopt" in loaded
    assert not [name for name in loaded if inside(name, *HEAVY)]


def test_a_model_loads_no_peer_and_no_driver():
    """numba, numpy and scipy are what the kernels need; nothing else comes with them."""
    made = "params = nbopt.ParameterBuffer.from_arrays({'w': [1.0]})"
    loaded = modules(f"{made}; nbopt.optimizer.SGD(0.1, parameters=params)")
    assert "nbopt.optimizer" in loaded
    peers = [name for name in HEAVY if name not in ("numba", "llvmlite", "numpy", "scipy")]
    assert not [name for name in loaded if inside(name, *peers, "numba_cuda", "nbopt.demo", "nbopt.interop")]


def test_a_checkout_works_that_is_not_installed(tmp_path):
    """-S leaves out site-packages, where an installed copy would be."""
    done = subprocess.run(
        [sys.executable, "-S", "-c", "import nbopt; print(nbopt.__version__, len(dir(nbopt)) > 10)"],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == [nb.__version__, "True"], done.stderr


# --- public names ---------------------------------------------------------------------------------


def test_public_names_are_sorted_listed_and_no_others():
    assert nb.__all__ == sorted(nb.__all__)
    assert set(nb.__all__) <= set(dir(nb))
    with pytest.raises(AttributeError, match="no attribute 'optimiser'"):
        _ = nb.optimiser


def test_type_checkers_see_the_same_names():
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    seen = {
        alias.asname or alias.name
        for n in ast.walk(tree)
        if isinstance(n, ast.ImportFrom)
        for alias in n.names
    }
    assert {*nb.__all__, *nb._ROOMS} <= seen


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"nbopt.__main__"}))
def test_every_module_lists_names_that_exist(name):
    module = importlib.import_module(name)
    assert [public for public in getattr(module, "__all__", []) if not hasattr(module, public)] == []


def test_the_version_is_stated_once():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project.get("version", nb.__version__) == nb.__version__
    assert "version" in project or "version" in project["dynamic"]
