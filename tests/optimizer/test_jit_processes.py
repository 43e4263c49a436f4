"""A step inside compiled code, in other processes: code of the user's on disk, forks, layers."""

import gc
import json
import os

import numba
import numpy as np
import pytest

import nbopt as nb
from nbopt.kernels import tables as t
from tests.kernels import python
from tests.optimizer.jit import LARGE, SHAPES, digest, mixed, train
from tests.processes import forks, in_child

# --- code of the user's on disk -------------------------------------------------------------------

SCRIPT = """
import json, sys
import numba
from numba.core import event
import nbopt as nb

names = []

class Listener(event.Listener):
    def on_start(self, event):
        names.append(event.data["dispatcher"].py_func.__name__)

    def on_end(self, event):
        pass

params = nb.ParameterBuffer.from_arrays({"w": [8.0, 4.0]}, dtype="float32")
opt = getattr(nb.optimizer, sys.argv[1])(0.5, parameters=params)

with event.install_listener("numba:compile", Listener()):
    step, state = opt.jit_step()

    @numba.njit(cache=True)
    def train(state, w, dw, steps):
        for _ in range(steps):
            dw[:] = w
            if step(state):
                return False
        return True

    done = train(state, params["w"].value, params["w"].grad, 2)
print(json.dumps({"done": done, "w": params.to_vector().tolist(), "compiled": names}))
"""


def test_a_loop_on_disk_serves_every_optimizer(tmp_path):
    """The first run compiles loop and kernel; another rule its kernel alone; each again nothing."""
    script, cache = tmp_path / "script.py", tmp_path / "cache"
    script.write_text(SCRIPT)

    def compiled(name):
        found = json.loads(python(str(script), name, NUMBA_CACHE_DIR=str(cache)))
        assert found["done"]
        assert found["w"] == {"SGD": [2.0, 1.0], "Momentum": [-1.5999999046325684, -0.7999999523162842]}[name]
        return found["compiled"]

    assert "train" in compiled("SGD")
    assert compiled("SGD") == []
    of_kernel = compiled("Momentum")
    assert any(name.startswith("step_") for name in of_kernel)
    assert not {"train", "jit_step"} & set(of_kernel)
    assert compiled("Momentum") == compiled("SGD") == []


# --- after a fork ---------------------------------------------------------------------------------


@forks
class TestForks:
    @pytest.mark.skipif(numba.config.NUMBA_NUM_THREADS < 2, reason="needs two threads")
    def test_a_child_goes_on_with_the_same_bits(self):
        """The parent has threads in its state, of which the child has none."""
        params, opt, grads = mixed("Momentum", "float32", LARGE | SHAPES)
        _, state = opt.jit_step()
        assert state.call[t.CALL_THREADS] > 1
        assert train(state, params.flat_grad, grads[:30]) == 0
        reading, writing = os.pipe()

        def work():
            ok = train(state, params.flat_grad, grads[30:60]) == 0
            _, again = opt.jit_step()
            ok = ok and train(again, params.flat_grad, grads[60:]) == 0
            os.write(writing, digest(params, opt).encode())
            return ok and again.call[t.CALL_THREADS] == state.call[t.CALL_THREADS] == 1

        assert in_child(work)
        assert state.call[t.CALL_THREADS] > 1
        assert train(state, params.flat_grad, grads[30:60]) == 0
        assert train(state, params.flat_grad, grads[60:]) == 0
        assert os.read(reading, 100).decode() == digest(params, opt)
        os.close(reading)
        os.close(writing)

    @pytest.mark.parametrize("kept", [True, False], ids=["optimizer-kept", "state-alone"])
    def test_a_child_may_step_what_another_thread_was_stepping(self, kept):
        params = nb.ParameterBuffer.from_arrays({"w": np.ones(3)})
        opt = nb.optimizer.SGD(1.0, parameters=params)
        params["w"].grad = np.ones(3)
        step, state = opt.jit_step()
        w, counters = params["w"].value, opt._tables.counters
        counters[t.BUSY] = 1  # as if another thread were inside a step
        if not kept:
            del opt
            gc.collect()
        assert in_child(lambda: step(state) == 0 and (w == 0.0).all())
        assert step(state) == 2


# --- threading layers -----------------------------------------------------------------------------

THREADS = """
import sys, threading
import numba
import numpy as np
import nbopt as nb

SIZE, STEPS = 100_000, 60

def model(seed):
    rng = np.random.default_rng(seed)
    params = nb.ParameterBuffer.from_arrays({"w": rng.standard_normal(SIZE)}, dtype="float32")
    opt = nb.optimizer.Momentum(0.1, parameters=params, grad_clip=nb.ClipGradByGlobalNorm(1.0))
    params["w"].grad = rng.standard_normal(SIZE)
    return params, opt

def by_step(opt):
    for _ in range(STEPS):
        opt.step()

models = [model(seed) for seed in range(6)]
models[0][1].step()  # starts the layer
take, _ = models[0][1].jit_step()

@numba.njit(nogil=True)
def loop(state, steps):
    total = 0
    for _ in range(steps):
        total += take(state)
    return total

models = [model(seed) for seed in range(6)]
states = [opt.jit_step()[1] for _, opt in models]
loop(states[0], 0)
works = [lambda s=state: loop(s, STEPS) for state in states[:4]]
works += [lambda o=opt: by_step(o) for _, opt in models[4:]]
threads = [threading.Thread(target=work) for work in works]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
alone = [model(seed) for seed in range(6)]
for _, opt in alone:
    by_step(opt)
same = [a.fingerprint() == b.fingerprint() for (a, _), (b, _) in zip(models, alone)]
print(numba.threading_layer(), [int(state.call[2]) for state in states], same)
"""


@pytest.mark.parametrize(("layer", "threads"), [("workqueue", 1), ("omp", 2)])
def test_several_threads_step_large_models(layer, threads):
    """The workqueue layer would end the process: there compiled code runs its steps in one thread."""
    try:
        printed = python("-c", THREADS, NUMBA_THREADING_LAYER=layer, NUMBA_NUM_THREADS="2")
    except AssertionError as error:
        if "No threading layer could be loaded" in str(error):
            pytest.skip(f"this machine has no {layer} layer")
        raise
    assert printed == f"{layer} {[threads] * 6} {[True] * 6}\n"


FRESH = """
import numpy as np
import nbopt as nb

opt = nb.optimizer.SGD(0.1, nb.ParameterBuffer.from_arrays({"w": np.ones(100_000)}))
print(opt.jit_step()[1].call[2])
"""


def test_a_process_without_a_step_has_threads_too():
    """Which layer runs is known as soon as the code for threads is there, compiled or loaded."""
    for _ in range(2):
        assert python("-c", FRESH, NUMBA_THREADING_LAYER="omp", NUMBA_NUM_THREADS="2").split() == ["2"]
