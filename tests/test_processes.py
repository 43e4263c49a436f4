"""Forks, threads and odd surroundings."""

import os
import subprocess
import sys
import threading
import types

import numpy as np
import pytest

import nbopt as nb
from nbopt import buffer
from nbopt.compat import _hook, paddle
from nbopt.errors import ConcurrencyError, ParameterError
from nbopt.kernels import tables as t
from tests.processes import forks, in_child


def model(size=50):
    params = nb.ParameterBuffer.from_arrays({"a": np.zeros(size), "b": np.zeros(size)})
    return params, nb.optimizer.SGD(1.0, parameters=params)


def test_gradients_of_two_threads_do_not_mix():
    params, opt = model()
    taken = {1.0: 0, 1000.0: 0}

    def steps(value):
        for _ in range(400):
            try:
                opt.step({name: np.full(50, value) for name in params})
            except ConcurrencyError:
                continue
            taken[value] += 1

    opt.step({name: np.zeros(50) for name in params})
    threads = [threading.Thread(target=steps, args=(value,)) for value in taken]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expected = -sum(value * count for value, count in taken.items())
    np.testing.assert_array_equal(params.to_vector(), np.full(100, expected))


@forks
def test_a_child_may_step_what_another_thread_was_stepping():
    params, opt = model()
    opt.step({"a": np.ones(50), "b": np.ones(50)})
    opt._tables.counters[t.BUSY] = 1  # as if another thread were inside a step
    opt._tables.turns[object()] = None

    def work():
        opt.step({"a": np.ones(50), "b": np.ones(50)})
        return (params["a"].value == -2.0).all()

    assert in_child(work)
    with pytest.raises(ConcurrencyError):
        opt.step()


def test_without_the_compiler_there_is_one_clear_error():
    code = (
        "import nbopt as nb; p = nb.ParameterBuffer.from_arrays({'w': [1.0]});"
        "nb.optimizer.SGD(0.1, parameters=p).step()"
    )
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1"}
    run = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert run.returncode == 1
    assert "RuntimeError: nbopt runs compiled code only: unset NUMBA_DISABLE_JIT" in run.stderr


@pytest.mark.parametrize(
    "make",
    [
        lambda n: nb.ParameterBuffer().create_parameter([1], n),
        lambda n: nb.ParameterBuffer.from_arrays({n: [1.0]}),
    ],
    ids=["create", "arrays"],
)
def test_a_name_is_text(make):
    with pytest.raises(ParameterError, match="surrogates"):
        make("w\ud800")


def seal():
    return nb.ParameterBuffer.from_arrays({"a": [2.0]})["a"].value.item() == 2.0


def attach():
    layer = types.new_class("Layer")()
    layer.weight = np.ones((2, 3))
    paddle.weight_norm(layer)
    return layer.weight_g.shape == (2,)


@forks
@pytest.mark.parametrize(
    ("lock", "use"),
    [(lambda: buffer._sealing, seal), (lambda: _hook._EXCHANGE, attach)],
    ids=["sealing", "weight norm of an object"],
)
def test_a_child_may_use_what_another_thread_had_locked(lock, use):
    assert use()
    held, done = threading.Event(), threading.Event()

    def hold():
        with lock():
            held.set()
            done.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(60)
    ok = in_child(use)
    done.set()
    thread.join()
    assert ok
