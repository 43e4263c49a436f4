"""The disk cache: filled once for all processes, not asked after an edit, not needed where none can be."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numba
import pytest
from numba.core import caching

import nbopt as nb
from nbopt.kernels import cache as module
from nbopt.kernels.cache import Cached

PACKAGE = Path(nb.__file__).resolve().parent

# Two kernels: a norm, and a step whose gradient is exact in float32.
SCRIPT = """
import json, sys, warnings
import numpy as np
from numba.core import event
import nbopt as nb

print("ready", flush=True)
rate = float(sys.stdin.readline())
with event.install_recorder("numba:compile") as compilations, warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    params = nb.ParameterBuffer.from_arrays({"w": [3.0, 4.0]}, dtype="float32")
    opt = nb.optimizer.SGD(rate, parameters=params, grad_clip=nb.ClipGradByGlobalNorm(100.0))
    opt.step({"w": [0.5, 0.25]})
    norm = nb.norm(np.full(9, 0.1, "float32"))
print(json.dumps({
    "package": nb.__file__,
    "w": params.to_vector().tolist(),
    "bits": [params.fingerprint(), norm.hex()],
    "compiled": sum(e.is_start for _, e in compilations.buffer),
    "warnings": [f"{w.category.__name__}: {w.message}" for w in caught],
}))
"""


def at_once(count, root, rate=1.0, **environment):
    """Run the script in so many processes, which begin when all have imported the package of `root`."""
    environment = {**os.environ, "PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1", **environment}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    command = [sys.executable, "-c", SCRIPT]
    processes = [subprocess.Popen(command, cwd=root, env=environment, **pipes) for _ in range(count)]
    for process in processes:
        process.stdout.readline()
    for process in processes:
        process.stdin.write(f"{rate}\n")
        process.stdin.flush()
    results = []
    for process in processes:
        out, error = process.communicate(timeout=600)
        assert process.returncode == 0, error
        results.append(json.loads(out))
        assert Path(results[-1]["package"]).is_relative_to(root)
    return results


def run(*args, **environment):
    return at_once(1, *args, **environment)[0]


def files(folder):
    return [path for path in folder.rglob("*") if path.is_file()]


def copy_to(folder):
    """A copy of the package that no cache knows; return the folder to import it from."""
    shutil.copytree(PACKAGE, folder / "nbopt", ignore=shutil.ignore_patterns("__pycache__"))
    return folder


# --- between processes ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """A package, a cache that two processes filled at once, and their results."""
    root, cache = copy_to(tmp_path_factory.mktemp("copy")), tmp_path_factory.mktemp("cache")
    return root, cache, at_once(2, root, NUMBA_CACHE_DIR=str(cache))


def test_two_processes_may_fill_one_cache_at_once(shared):
    _, cache, (first, second) = shared
    assert first["compiled"] > 0
    assert first["warnings"] == second["warnings"] == []
    assert first["bits"] == second["bits"]
    assert first["w"] == second["w"] == [2.5, 3.75]
    assert {path.suffix for path in files(cache)} == {".nbi", ".nbc"}  # nothing half written


@pytest.mark.parametrize("rate", [1.0, 0.5])
def test_a_later_process_compiles_nothing(shared, rate):
    root, cache, (first, _) = shared
    before = {path: path.read_bytes() for path in files(cache)}
    later = run(root, rate, NUMBA_CACHE_DIR=str(cache))
    assert later["compiled"] == 0
    assert later["warnings"] == []
    assert later["w"] == [3.0 - rate * 0.5, 4.0 - rate * 0.25]
    assert (later["bits"] == first["bits"]) == (rate == 1.0)
    assert {path: path.read_bytes() for path in files(cache)} == before


# --- after an edit --------------------------------------------------------------------------------


def test_an_edit_is_never_answered_from_the_cache(shared):
    """First of a formula, then of a constant that it names; Numba itself watches neither."""
    root, cache, (first, _) = shared
    scalars = root / "nbopt/kernels/scalars.py"
    original = scalars.read_text()
    formula, edited = "return factor * grad\n", "return factor * grad * GAIN\n\n\nGAIN = {}\n"
    assert original.count(formula) == 1
    for gain, expected in ((2.0, [2.0, 3.5]), (4.0, [1.0, 3.0])):
        scalars.write_text(original.replace(formula, edited.format(gain)))
        result = run(root, NUMBA_CACHE_DIR=str(cache))
        assert result["compiled"] > 0
        assert result["w"] == expected
    scalars.write_text(original)
    restored = run(root, NUMBA_CACHE_DIR=str(cache))
    assert restored["compiled"] == 0
    assert restored["bits"] == first["bits"]


# --- without a cache ------------------------------------------------------------------------------


def test_without_a_cache_all_works_after_one_warning(tmp_path):
    """A file stands where each of the folders would be made, which stops root too."""
    root, file = copy_to(tmp_path / "copy"), tmp_path / "file"
    file.touch()
    for folder in [folder for folder in root.rglob("*") if folder.is_dir()]:
        (folder / "__pycache__").touch()
    nowhere = {
        name: str(file / name) for name in ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME", "LOCALAPPDATA", "HOME")
    }
    result = run(root, **nowhere)
    assert result["w"] == [2.5, 3.75]
    assert result["compiled"] > 0
    (warning,) = result["warnings"]
    assert warning.startswith("RuntimeWarning: nbopt cannot keep compiled code on disk")
    assert "NUMBA_CACHE_DIR" in warning
    assert not [path for path in files(tmp_path) if path.suffix in (".nbi", ".nbc")]


def add_one(x):
    return x + 1.0


@pytest.fixture
def fresh(monkeypatch):
    """A process that has not warned yet."""
    monkeypatch.setattr(module, "_warned", False)


def test_an_unwritable_cache_is_no_error(fresh, monkeypatch):
    for kind in vars(caching).values():  # none of the places that Numba knows takes a file
        if isinstance(kind, type) and issubclass(kind, caching._CacheLocator):
            monkeypatch.setattr(kind, "from_function", lambda *_: None)
    with pytest.warns(RuntimeWarning, match="NUMBA_CACHE_DIR"):
        function = Cached(add_one, nogil=True)
    assert function(1.0) == 2.0


def test_a_full_disk_is_no_error(fresh, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(caching.FunctionCache, "save_overload", full)
    called, compiled = Cached(add_one), Cached(add_one)
    with pytest.warns(RuntimeWarning, match="No space left"):
        assert called(1.0) == 2.0
    assert compiled.compile((numba.float64,)).entry_point(1.0) == 2.0  # warned once, and warnings are errors


@pytest.mark.parametrize("kept", [0, 100, 0.5], ids=str)
def test_a_damaged_file_is_no_error(shared, tmp_path, kept):
    root, cache, (first, _) = shared
    damaged = tmp_path / "cache"
    shutil.copytree(cache, damaged)
    for path in damaged.rglob("*.nbc"):
        path.write_bytes(path.read_bytes()[: kept if kept != 0.5 else path.stat().st_size // 2])
    result = run(root, NUMBA_CACHE_DIR=str(damaged))
    assert result["bits"] == first["bits"]
    assert result["compiled"] > 0
    (warning,) = result["warnings"]
    assert "NUMBA_CACHE_DIR" in warning


def test_uncompiled_code_is_refused(monkeypatch):
    monkeypatch.setattr(numba.config, "DISABLE_JIT", True)
    with pytest.raises(RuntimeError, match="unset NUMBA_DISABLE_JIT"):
        Cached(add_one)


def test_another_runtime_error_is_not_swallowed(monkeypatch):
    def refuse(*_, **__):
        raise RuntimeError("something else")

    monkeypatch.setattr(numba, "njit", refuse)
    with pytest.raises(RuntimeError, match="something else"):
        Cached(add_one)
