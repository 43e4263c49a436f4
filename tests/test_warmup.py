"""`python -m nbopt warmup`: what it compiles, what it says, and that a first step then compiles nothing."""

import json
import re

import pytest

from nbopt import warmup
from nbopt.__main__ import main
from nbopt.kernels import rules
from tests.kernels import python
from tests.test_demo_command import python as attempt

# A first step of a small and of a large model, without and with weight norm.
FIRST_STEPS = """
import json
import numpy as np
from numba.core import event
import nbopt as nb

names = {}

class Listener(event.Listener):
    def on_start(self, event):
        names[kind].append(event.data["dispatcher"].py_func.__name__)

    def on_end(self, event):
        pass

with event.install_listener("numba:compile", Listener()):
    for kind, attr in (("plain", None), ("weight norm", nb.WeightNormParamAttr(dim=0))):
        names[kind] = []
        for size in (3, 70_000):
            params = nb.ParameterBuffer(dtype="float32")
            w = params.create_parameter([2, size], name="w", attr=attr)
            opt = nb.optimizer.SGD(0.1, parameters=params, grad_clip=nb.ClipGradByGlobalNorm(1.0))
            w.grad = np.ones((2, size))
            opt.step()
            opt.jit_step()
            if attr:
                w.weight_v.grad, w.weight_g.grad
print(json.dumps(names))
"""


def run(cache, *options):
    """Return the label and outcome of each kernel, and the folder that was told."""
    *lines, last = python("-m", "nbopt", "warmup", *options, NUMBA_CACHE_DIR=str(cache)).splitlines()
    found = [re.fullmatch(r"(.*\S) +(compiled|loaded) +\d+\.\d\d s", line).groups() for line in lines]
    return dict(found), last.removeprefix("cache: ")


def first_steps(cache):
    return json.loads(python("-c", FIRST_STEPS, NUMBA_CACHE_DIR=str(cache), NUMBA_NUM_THREADS="2"))


def test_the_first_step_then_compiles_nothing(tmp_path):
    told, folder = run(tmp_path, "--rule", "sgd")
    assert told == {"sgd float32": "compiled", "sgd float32, threads": "compiled"}
    assert folder.startswith(str(tmp_path))
    assert list(tmp_path.rglob("*.nbc"))
    first = first_steps(tmp_path)
    assert first["plain"] == []
    assert first["weight norm"]  # was not asked for; and the script hears compilations


@pytest.mark.slow  # the kernels of weight norm compile for half a minute
def test_weight_norm_and_what_is_there_already(tmp_path):
    options = "--rule", "sgd", "--weight-norm"
    told, _ = run(tmp_path, *options)
    labels = ["sgd float32", "sgd float32, threads"]
    labels += [f"sgd float32, weight norm{threads}" for threads in ("", ", threads")]
    arrays = [f"{name} float32" for name in ("array_squares", "slice_sums", "compose", "backward")]
    assert told == dict.fromkeys(arrays + labels, "compiled")
    assert first_steps(tmp_path) == {"plain": [], "weight norm": []}
    assert run(tmp_path, *options)[0] == dict.fromkeys(told, "loaded")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], (["momentum", "sgd", "adam", "adamw"], ["float32"], [False])),
        (["--all"], (rules.__all__, ["float32", "float64"], [False, True])),
        (["--dtype", "float64"], (["momentum", "sgd", "adam", "adamw"], ["float64"], [False])),
        (["--rule", "adam", "sgd", "--weight-norm"], (["adam", "sgd"], ["float32"], [False, True])),
    ],
)
def test_what_is_asked_for(options, expected, monkeypatch, capsys):
    asked = []

    def record(*arguments):
        asked.append(tuple(map(list, arguments)))
        yield warmup.Kernel("x float32", True, 0.25, "/somewhere")

    monkeypatch.setattr(warmup, "warm_up", record)
    assert main(["warmup", *options]) == 0
    assert asked == [expected]
    line, last = capsys.readouterr().out.splitlines()
    assert line.split() == ["x", "float32", "loaded", "0.25", "s"]
    assert last == "cache: /somewhere"


def test_every_built_in_rule_can_be_asked_for():
    assert set(rules.__all__) == {
        name for name, value in vars(rules).items() if isinstance(value, rules.sgd.__class__)
    }


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--rule", "lion"], "'lion'"),
        (["--rule"], "expected at least one argument"),
        (["--dtype", "float16"], "'float16'"),
        (["--all", "--weight-norm"], "--all leaves nothing to choose"),
        (["--all", "--rule", "sgd"], "--all leaves nothing to choose"),
        (["--rul", "sgd"], "--rul"),
    ],
)
def test_mistakes_get_one_line_and_status_2(arguments, words, capsys):
    try:
        status = main(["warmup", *arguments])
    except SystemExit as exit_:
        status = exit_.code
    out, err = capsys.readouterr()
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("python -m nbopt")
    assert words in err


NOWHERE = """
for kind in vars(caching).values():
    if isinstance(kind, type) and issubclass(kind, caching._CacheLocator):
        kind.from_function = lambda *_: None
"""
FULL = """
def full(*_):
    raise OSError(28, "No space left on device")
caching.FunctionCache.save_overload = full
"""


@pytest.mark.parametrize("trouble", [NOWHERE, FULL], ids=["nowhere", "full"])
def test_a_cache_that_cannot_be_written_is_one_line(trouble, tmp_path):
    code = f"import sys\nfrom numba.core import caching\nfrom nbopt.__main__ import main\n{trouble}"
    code += "sys.exit(main(['warmup', '--rule', 'sgd']))"
    done = attempt("-c", code, cwd=tmp_path, NUMBA_CACHE_DIR=str(tmp_path))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("python -m nbopt warmup: error: compiled code cannot be kept on disk: set ")
    assert done.stderr.count("\n") == 1


def test_help_costs_no_heavy_import(tmp_path):
    code = (
        "import sys\nfrom nbopt.__main__ import main\n"
        "try:\n    main(['warmup', '--help'])\nexcept SystemExit as e:\n    assert e.code == 0\n"
        "assert not {'numpy', 'numba', 'scipy'} & set(sys.modules)"
    )
    done = attempt("-c", code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for word in ("rule", "dtype", "weight-norm", "all"):
        assert f"\n  --{word} " in done.stdout
