"""Steps: whole or not at all, whatever the gradients, and what arithmetic does at the ends of its range."""

import math

import numpy as np
from numpy.testing import assert_allclose

import nbopt as nb
from nbopt.errors import NonFiniteGradientError, ParameterError, StateDictError
from tests.hostile import F32, F64, buffer, refused, same, stepped


def one_bad_gradient():
    params = buffer(w=[1.0, 2.0])
    opt = nb.optimizer.Momentum(0.1, 0.9, params, nonfinite="skip")
    opt.step({"w": [math.nan, 1.0]})
    assert (opt.step_count, opt.steps_skipped) == (0, 1)
    same(opt.state_dict()["w.velocity"], F32([0, 0]))
    opt.step({"w": [1.0, 1.0]})
    assert (opt.step_count, opt.steps_skipped) == (1, 1)
    same(params["w"].value, F32([1, 2]) - F32(0.1) * F32([1, 1]))
    same(opt.state_dict()["w.velocity"], F32([1, 1]))


def scaled_gradients():
    """Gradients of a loss that was scaled up: rescale_grad takes it back, and an overflow is counted."""
    params = buffer(w=[1.0, 2.0])
    opt = nb.optimizer.Momentum(0.5, 0.0, params, rescale_grad=1 / 65536, nonfinite="skip")
    opt.step({"w": [math.inf, 1.0]})
    assert (opt.step_count, opt.steps_skipped) == (0, 1)
    opt.step({"w": [65536.0, 32768.0]})
    same(params["w"].value, F32([0.5, 1.75]))
    for _ in range(9):
        opt.step({"w": [math.nan, 0.0]})
    refused(lambda: opt.step({"w": [math.nan, 0.0]}), NonFiniteGradientError, "10 refusals in a row")
    same(params["w"].value, F32([0.5, 1.75]))


def small_steps():
    """Of 1e-3 each in float32, also where the values came as float16."""
    for count, end in ((300, 0.7), (1000, 0.0)):
        params = nb.ParameterBuffer.from_arrays({"w": np.float16([1.0])})
        opt = nb.optimizer.SGD(1e-3, params)
        params["w"].grad = [1.0]
        expected = F32([1.0])
        for _ in range(count):
            opt.step()
            expected -= F32(1e-3)
        same(params["w"].value, expected)
        assert abs(params["w"].value[0] - end) < 2e-5


def a_product_of_float64():
    same(stepped([0.0], [1.0], F64, rate=0.1)[1], F64([-0.1]))
    same(stepped([0.0], [0.7], F64, rate=0.1)[1], F64([-(0.1 * 0.7)]))


def state_that_does_not_fit():
    params = buffer(a=[0.0], b=[0.0], c=[0.0], d=[0.0])
    opt = nb.optimizer.Momentum(0.1, 0.9, params)
    opt.step({name: [1.0] for name in params})
    before, state = params.fingerprint(), opt.state_dict()
    bad = state | {"c.velocity": np.zeros(3, F32), "a.velocity": F32([9])}
    refused(lambda: opt.set_state_dict(bad), StateDictError, "c.velocity", "(3,)", "(1,)")
    assert params.fingerprint() == before
    same(opt.state_dict()["a.velocity"], F32([1]))
    opt.step({name: [0.0] for name in params})
    assert len(set(params.to_vector())) == 1  # all moved alike


def value_of_another_shape():
    params = buffer(w=[1.0])
    opt = nb.optimizer.SGD(0.1, params)
    view = params["w"].value
    refused(lambda: params["w"].set_value(np.ones(5)), ParameterError, "'w'", "(5,)", "(1,)")
    refused(lambda: setattr(params["w"], "value", np.ones(5)), ParameterError, "'w'", "(5,)", "(1,)")
    opt.step({"w": [1.0]})
    same(view, F32([F32(1) - F32(0.1)]))


def an_update_that_overflows():
    """The element is infinite, as IEEE arithmetic has it, and no other is touched; later refusals say so."""
    opt, values = stepped([1.0, 2.0, 3.0], [3e38, 1.0, -1.0], rate=10.0)
    same(values, F32([-math.inf, -8.0, 13.0]))
    assert (opt.step_count, opt.overflowed) == (1, {"w": 1})
    bad = {"w": [math.nan, 0.0, 0.0]}
    refused(lambda: opt.step(bad), NonFiniteGradientError, "gradient of 'w' is nan", "-inf at (0,) already")


def every_place():
    """The guard sees one bad element wherever it is: in any lane, at the ends of blocks, in the last one."""
    size = 3 * 4096 + 5
    for dtype in (F32, F64):
        params = buffer(dtype, w=np.zeros(size))
        opt = nb.optimizer.SGD(1.0, params, nonfinite="skip")
        places = [0, 1, 127, 128, 4095, 4096, 8191, 3 * 4096, size - 1]
        for place in places:
            for value in (math.nan, math.inf, -math.inf):
                grad = np.zeros(size, dtype)
                grad[place] = value
                assert not math.isfinite(nb.norm(grad))
                skipped = opt.steps_skipped
                opt.step({"w": grad})
                assert opt.steps_skipped == skipped + 1
                opt.step({"w": np.zeros(size)})  # ends the row of refusals
        same(params["w"].value, np.zeros(size, dtype))


def division_by_zero():
    """0/0 is NaN in that element, not an error in the middle of a step."""
    params = buffer(w=[1.0, 2.0])
    nb.optimizer.Adam(0.5, epsilon=0.0, parameters=params).step({"w": [0.0, 1.0]})
    assert_allclose(params["w"].value, [math.nan, 1.5], rtol=1e-6)


def nothing_is_half_done():
    """A bad element in the last block leaves the first as they were."""
    size = 40_000
    params = buffer(w=np.ones(size), b=np.ones(10))
    opt = nb.optimizer.Momentum(0.1, 0.9, params)
    grad = np.ones(size)
    grad[-1] = math.nan
    refused(lambda: opt.step({"w": grad, "b": np.ones(10)}), NonFiniteGradientError, "'w'", "(39999,)")
    same(params.to_vector(), np.ones(size + 10, F32))
    assert not opt.state_dict()["b.velocity"].any()
