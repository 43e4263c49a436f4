"""`nb.show_config` and `python -m nbopt info`: what they find, how they say it, what they advise."""

import copy
import json

import pytest

import nbopt as nb
from nbopt import info
from nbopt.__main__ import main
from nbopt.errors import HyperparameterError
from nbopt.kernels import machine
from tests.kernels import python

GOOD = {
    "versions": {"nbopt": "1.2.3", "python": "3.12.1", "numpy": "2.0.0", "numba": "0.61", "numba-cuda": None},
    "cpu": {"name": "znver4", "simd": "AVX-512", "bits": 512, "chosen": False, "compiles": True},
    "threads": {"used": 8, "cores": 8, "quota": None, "layer": "omp"},
    "cuda": {"devices": [], "missing": "no NVIDIA driver was found", "driver": False},
    "cache": {"folder": "/home/ada/cache", "files": 4, "bytes": 2_500_000},
}
GOOD["versions"]["scipy"] = "1.14"


def with_(**changes):
    """The machine above, with `section__key=value` changed."""
    found = copy.deepcopy(GOOD)
    for where, value in changes.items():
        section, key = where.split("__")
        found[section][key] = value
    return found


# --- what is said ---------------------------------------------------------------------------------


def test_the_text():
    lines = info.as_text({**GOOD, "advice": ["Do " + "this and that " * 10, "Rest."]}).splitlines()
    assert lines[0].startswith("nbopt 1.2.3 on Python 3.12.1, ")
    assert lines[1:8] == [
        "",
        "Packages  numpy 2.0.0, numba 0.61, scipy 1.14",
        "CPU       znver4, AVX-512: 16 numbers of float32 at a time",
        "Threads   8 for large models, on 8 cores, by Numba's layer omp",
        "CUDA      cannot be used: no NVIDIA driver was found",
        "Cache     2.5 MB of compiled steps in /home/ada/cache",
        "",
    ]
    assert lines[8] == "Advice"
    assert lines[9].startswith("- Do this")
    assert lines[10].startswith("  ")
    assert lines[-1] == "- Rest."
    assert max(map(len, lines)) <= 100


def test_the_text_of_other_machines():
    two = with_(cuda__devices=["A, compute capability 9.0", "B"], threads__cores=1, cache__folder=None)
    text = info.as_text({**two, "advice": []})
    assert "CUDA      cuda:0 is A, compute capability 9.0; cuda:1 is B\n" in text
    assert "on 1 core, by" in text
    assert text.endswith("Cache     none: compiled steps are not kept")
    assert "Cache     empty: /home/ada/cache" in info.as_text({**with_(cache__files=0), "advice": []})


@pytest.mark.parametrize(
    ("change", "mend"),
    [
        ({"cache__folder": None}, "NUMBA_CACHE_DIR"),
        ({"cache__files": 0}, "python -m nbopt warmup"),
        ({"cpu__compiles": False}, "NUMBA_DISABLE_JIT"),
        ({"threads__quota": 2.0}, "NUMBA_NUM_THREADS=2"),
        ({"threads__quota": 0.5}, "NUMBA_NUM_THREADS=1"),
        ({"threads__used": 9}, "NUMBA_NUM_THREADS=8"),
        ({"threads__used": 1}, "unset NUMBA_NUM_THREADS"),
        ({"threads__layer": "workqueue"}, "libgomp1"),
        ({"cpu__chosen": True}, "unset it to use all"),
        ({"cuda__driver": True}, "CUDA cannot be used: no NVIDIA driver was found."),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_advice(change, mend):
    """One sentence for one fault, with what to type."""
    (tip,) = info.advice(with_(**change))
    assert mend in tip
    assert tip.endswith(".")


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"threads__quota": 8.0},
        {"threads__quota": 7.6},
        {"cuda__driver": True, "cuda__devices": ["A"]},
        {"threads__used": 4},
    ],
    ids=str,
)
def test_no_advice_where_nothing_is_wrong(change):
    assert info.advice(with_(**change)) == []


def test_one_thread_by_a_slow_layer_is_no_fault_of_the_layer():
    tips = info.advice(with_(threads__used=1, threads__layer="workqueue"))
    assert "libgomp1" not in " ".join(tips)


# --- what is found --------------------------------------------------------------------------------


def test_what_is_found_is_true(tmp_path):
    code = (
        "import json, numba, numpy, nbopt as nb; numba.set_num_threads(1); nb.show_config('json');"
        "print(json.dumps([numpy.__version__, numba.__version__]))"
    )
    environment = {"NUMBA_NUM_THREADS": "2", "NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": "+avx,+avx2"}
    out = python("-c", code, NUMBA_CACHE_DIR=str(tmp_path), **environment)
    found, rest = json.JSONDecoder().raw_decode(out)
    numpy_version, numba_version = json.loads(out[rest:])
    assert found["versions"]["nbopt"] == nb.__version__
    assert (found["versions"]["numpy"], found["versions"]["numba"]) == (numpy_version, numba_version)
    assert found["cpu"] == {"name": "haswell", "simd": "AVX2", "bits": 256, "chosen": True, "compiles": True}
    assert found["threads"]["used"] == 1
    assert found["cache"]["folder"].startswith(str(tmp_path))
    assert (found["cache"]["files"], found["cache"]["bytes"]) == (0, 0)


def test_the_cache_is_counted(tmp_path):
    python("-m", "nbopt", "warmup", "--rule", "sgd", NUMBA_CACHE_DIR=str(tmp_path))
    out = python("-m", "nbopt", "info", "--json", NUMBA_CACHE_DIR=str(tmp_path))
    found = json.loads(out)["cache"]
    files = [path for path in tmp_path.rglob("*.nb?") if path.is_file()]
    assert found["files"] == len(files) == 4
    assert found["bytes"] == sum(path.stat().st_size for path in files)


def test_the_quota_of_a_container(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "_QUOTA", tmp_path / "cpu.max")
    assert machine.threads()["quota"] is None
    for text, cores in (("max 100000\n", None), ("150000 100000\n", 1.5), ("", None)):
        (tmp_path / "cpu.max").write_text(text)
        assert machine.threads()["quota"] == cores


def test_compiling_that_is_switched_off_is_said():
    out = python("-m", "nbopt", "info", NUMBA_DISABLE_JIT="1")
    assert "NUMBA_DISABLE_JIT is set" in out
    assert "NUMBA_CACHE_DIR" not in out


# --- the ways to ask ------------------------------------------------------------------------------


def test_the_command_and_the_function_say_the_same(capsys):
    assert main(["info"]) == 0
    by_command = capsys.readouterr().out
    assert nb.show_config() is None
    assert capsys.readouterr().out == by_command
    assert main(["info", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == nb.show_config("dict")


def test_other_modes_are_refused():
    with pytest.raises(HyperparameterError, match="'text', 'json' or 'dict', got 'yaml'"):
        nb.show_config("yaml")
