"""Whether each thread of a step takes subnormal numbers for zero, which another library may set (N10)."""

import json
import threading
import warnings

import numba
import numpy as np
import pytest

import nbopt as nb
from nbopt.errors import FloatEnvironmentWarning, NonFiniteGradientError
from nbopt.kernels.cpu.environment import is_flushing
from nbopt.optimizer import environment
from tests.floats import BITS, can_flush, control_word, flushing
from tests.kernels import python
from tests.optimizer import gradients, small

WORDS = "subnormal numbers .* in every thread .*set_flush_denormal"


@pytest.fixture
def new_process(monkeypatch):
    """As in a process that has not warned."""
    monkeypatch.setattr(environment, "_first", threading.Lock())


def model():
    params = small()
    opt = nb.optimizer.Momentum(0.1, parameters=params)
    params.set_grads(gradients(params))
    opt.step()
    return params, opt


# --- the probe ------------------------------------------------------------------------------------

PROBE = {"each way": sum(BITS.values()), **BITS}


@can_flush
@pytest.mark.parametrize("bits", PROBE.values(), ids=PROBE)
@pytest.mark.parametrize("compiled_while", [False, True], ids=["", "compiled-meanwhile"])
def test_the_probe(compiled_while, bits):
    probe = numba.njit(is_flushing)
    if compiled_while:
        with flushing(bits):
            probe(1)
    for count in (1, 2, 1000, 2**19):
        assert not probe(count)
        with flushing(bits):
            assert probe(count)
        assert not probe(count)


# --- one thread -----------------------------------------------------------------------------------


@can_flush
def test_a_step_warns_once_per_process(new_process):
    _, opt = model()
    _, other = model()
    with flushing():
        with pytest.warns(FloatEnvironmentWarning, match=WORDS) as caught:
            opt.step()
        opt.step()  # a warning would be an error
        other.step()
    assert [w.filename for w in caught] == [__file__]
    assert issubclass(FloatEnvironmentWarning, RuntimeWarning)
    assert (opt.step_count, other.step_count) == (3, 2)


@can_flush
def test_check_warns_after_each_step_that_found_it(new_process):
    _, opt = model()
    opt.check()
    for _ in range(2):
        with flushing(), warnings.catch_warnings():
            warnings.simplefilter("ignore", FloatEnvironmentWarning)
            opt.step()
        opt.step()  # it is over, and what was is still to be said
        with pytest.warns(FloatEnvironmentWarning, match=WORDS) as caught:
            opt.check()
        assert [w.filename for w in caught] == [__file__]
        opt.step()
        opt.check()


@can_flush
def test_steps_of_compiled_code(new_process):
    params, opt = model()
    step, state = opt.jit_step()
    assert step(state) == 0
    opt.check()
    with flushing():
        assert step(state) == 0
    assert step(state) == 0
    with pytest.warns(FloatEnvironmentWarning, match=WORDS):
        opt.check()
    opt.check()
    params["b"].grad[0] = np.nan
    with flushing():
        assert step(state) == 1
    with pytest.warns(FloatEnvironmentWarning), pytest.raises(NonFiniteGradientError, match="step 5"):
        opt.check()


@can_flush
def test_a_refused_step_says_both(new_process):
    params, opt = model()
    params["b"].grad[0] = np.inf
    with flushing(), pytest.warns(FloatEnvironmentWarning), pytest.raises(NonFiniteGradientError):
        opt.step()


@can_flush
@pytest.mark.filterwarnings("ignore::nbopt.errors.FloatEnvironmentWarning")
def test_nothing_is_set_and_normal_numbers_keep_their_bits():
    (params, opt), (plain, reference) = model(), model()
    with flushing():
        before = control_word()
        opt.step()
        assert control_word() == before
    before = control_word()
    reference.step()
    assert control_word() == before
    assert params.fingerprint() == plain.fingerprint()


@can_flush
def test_a_thread_is_told_of_itself_alone(new_process):
    _, opt = model()
    _, other = model()
    caught = []

    def work():
        with flushing(), warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            other.step()
            caught.extend(w.category for w in found)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert caught == [FloatEnvironmentWarning]
    opt.step()
    opt.check()


# --- workers --------------------------------------------------------------------------------------

WORKERS = """
import json, sys, warnings
import numpy as np
import nbopt as nb
from nbopt.kernels.cpu.run import PARALLEL_FROM
from tests.floats import set_flush

def found(call):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    return [str(w.message).split(":")[0].split("for zero ")[1] for w in caught]

params = nb.ParameterBuffer.from_arrays({"w": np.ones(PARALLEL_FROM, np.float32)})
opt = nb.optimizer.Momentum(0.1, 0.9, params)
step, state = opt.jit_step()
result = []
for on in (sys.argv[1] == "workers", sys.argv[1] == "caller"):  # workers start in the first
    set_flush(on)
    result += [found(call) for call in (opt.step, opt.check, opt.check)]
    step(state)
    result += [found(opt.check)]
set_flush(False)
print(json.dumps(result))
"""
EVERY = "in every thread that worked in the step"
APART = "in worker threads, but not in the thread that called the step"
SOME = "in some threads of the step, the one that called it among them"


# A step of Python's, two calls of check(), and check() after a step of compiled code; then once more.
FOUND = {
    "nobody": [[], [], [], [], [], [], [], []],
    "caller": [[], [], [], [], [SOME], [SOME], [], [SOME]],
    "workers": [[EVERY], [EVERY], [], [EVERY], [], [APART], [], [APART]],
}


@can_flush
@pytest.mark.parametrize("who", FOUND)
def test_each_worker_is_asked(who):
    """Workers keep what held where they were started: they may differ from the caller either way."""
    assert (
        json.loads(python("-c", WORKERS, who, NUMBA_NUM_THREADS="2", NUMBA_THREADING_LAYER="omp"))
        == FOUND[who]
    )


# --- no false alarm -------------------------------------------------------------------------------

QUIET = """
import warnings
warnings.simplefilter("error", RuntimeWarning)
import {}
import nbopt as nb
params = nb.ParameterBuffer.from_arrays({{"w": [1.0, 2.0]}})
opt = nb.optimizer.SGD(0.1, params)
params["w"].grad = [5e-324, 1e-310]
opt.step()
opt.check()
print(opt.step_count)
"""


@pytest.mark.parametrize("first", ["numpy, llvmlite.binding", "numba, scipy.linalg, numpy"])
def test_no_import_is_an_alarm(first):
    assert python("-c", QUIET.format(first)) == "1\n"
