"""Steps that are refused: gradients that are not finite, and a second thread. And finite ones of any size."""

import pickle
import threading
from fractions import Fraction
from functools import partial

import numba
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import nbopt as nb
from nbopt.errors import ConcurrencyError, NboptError, NonFiniteGradientError
from nbopt.kernels import tables
from tests.optimizer import RULES, as_clip, expand, gradients, normed, picture, refuses, small
from tests.oracle import Clip, clip_grads

NAN, INF = float("nan"), float("inf")
BAD = {"nan": NAN, "inf": INF, "minus-inf": -INF}
# Counters that a refused step moves.
COUNTERS = ("steps_skipped", "steps_skipped_in_a_row")


def everything(params, opt):
    """All that a refused step leaves as it was."""
    found = picture(params, opt)
    found["states"] = {k: v for k, v in found["states"][0].items() if k not in COUNTERS}
    return found


def spoil(params, name, index, value):
    """Good gradients, and one bad element."""
    params.set_grads(gradients(params, 3))
    params[name].grad[index] = value


# --- raise -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", BAD.values(), ids=BAD)
@pytest.mark.parametrize(("name", "index"), [("w", (0, 0)), ("w", (1, 2)), ("b", (1,)), ("k", (1,))])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("rule", RULES)
def test_raise(rule, dtype, name, index, value):
    params = small(dtype)
    opt = RULES[rule](0.1, parameters=params, weight_decay=0.1, grad_clip=nb.ClipGradByGlobalNorm(1.0))
    for seed in range(2):
        opt.step(gradients(params, seed))
    spoil(params, name, index, value)
    before = everything(params, opt)
    with pytest.raises(NonFiniteGradientError) as caught:
        opt.step()
    error = caught.value
    assert (error.name, error.index, error.step) == (name, index, 3)
    for word in (f"'{name}'", str(index), "step 3", str(value), "skip", "propagate"):
        assert word in str(error)
    assert everything(params, opt) == before
    assert (opt.step_count, opt.steps_skipped) == (2, 1)
    opt.check()  # said once
    opt.step(gradients(params, 3))
    assert opt.step_count == 3


def test_the_error():
    params = small()
    opt = nb.optimizer.SGD(0.1, params)
    spoil(params, "b", 2, NAN)
    error = refuses_step(opt)
    assert isinstance(error, FloatingPointError)
    assert isinstance(error, NboptError)
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.name, again.index, again.step) == (str(error), "b", (2,), 1)


def refuses_step(opt):
    with pytest.raises(NonFiniteGradientError) as caught:
        opt.step()
    return caught.value


def test_the_first_of_several_is_named():
    params = small()
    opt = nb.optimizer.Momentum(0.1, parameters=params)
    params["k"].grad = [INF, NAN]
    params["w"].grad = [[0.0, 0.0, 1.0], [-INF, NAN, 0.0]]
    error = refuses_step(opt)
    assert (error.name, error.index) == ("w", (1, 0))
    assert "-inf" in str(error)


def test_a_scalar_has_an_empty_index():
    params = nb.ParameterBuffer.from_arrays({"s": 1.0})
    params["s"].grad = NAN
    error = refuses_step(nb.optimizer.SGD(0.1, params))
    assert (error.name, error.index) == ("s", ())


@pytest.mark.parametrize("dim", [0, 1, None])
def test_a_weight_is_named_by_its_own_name(dim):
    params = normed(dim=dim)
    opt = nb.optimizer.Momentum(0.1, parameters=params)
    opt.step(gradients(params))
    spoil(params, "w", (1, 0), NAN)
    before = everything(params, opt)
    error = refuses_step(opt)
    assert (error.name, error.index, error.step) == ("w", (1, 0), 2)
    assert everything(params, opt) == before


@pytest.mark.parametrize("part", ["w_v", "w_g"])
@pytest.mark.parametrize("value", BAD.values(), ids=BAD)
def test_a_value_behind_a_weight_that_is_not_finite(value, part):  # N7
    params = normed()
    opt = nb.optimizer.Momentum(0.1, parameters=params)
    params.set_grads(gradients(params))
    spoiled = params[part].numpy()
    spoiled[1, 0] = value
    params[part].set_value(spoiled)
    before = everything(params, opt)
    error = refuses_step(opt)
    assert (error.name, error.index) == ("w", (1, 0))
    assert f"'{part}'" in str(error)
    assert everything(params, opt) == before


@pytest.mark.parametrize("why", ["frozen", "another-optimizer's"])
def test_what_does_not_move_may_be_anything(why):
    params = small()
    opt = nb.optimizer.Momentum(0.1, parameters=params if why == "frozen" else [params["w"], params["k"]])
    params["b"].trainable = why != "frozen"
    params.set_grads(gradients(params) | {"b": [NAN, INF, -INF]})
    opt.step()
    assert opt.step_count == 1
    assert np.isfinite(opt.grad_norm)


def test_an_absent_gradient_that_is_written_counts():
    params = small()
    opt = nb.optimizer.Momentum(0.1, parameters=params)
    params.clear_grad(set_to_zero=False)
    params["b"].grad[1] = NAN
    assert refuses_step(opt).name == "b"


# --- skip ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", BAD.values(), ids=BAD)
@pytest.mark.parametrize("rule", RULES)
def test_skip(rule, value):  # O28
    params = small()
    opt = RULES[rule](0.1, parameters=params, nonfinite="skip")
    opt.step(gradients(params))
    spoil(params, "b", 0, value)
    before = everything(params, opt)
    for refused in range(1, 10):
        opt.step()
        assert everything(params, opt) == before
        assert (opt.step_count, opt.steps_skipped) == (1, refused)
        assert opt.state_dict()["steps_skipped_in_a_row"] == refused
    error = refuses_step(opt)
    assert (error.name, error.index, error.step) == ("b", (0,), 2)
    assert "10 refusals in a row" in str(error)
    assert everything(params, opt) == before
    assert (opt.step_count, opt.steps_skipped) == (1, 10)


def test_only_refusals_in_a_row_count():
    params = small()
    opt = nb.optimizer.SGD(0.1, params, nonfinite="skip")
    for _ in range(3):
        for _ in range(9):
            opt.step({"b": [NAN, 0.0, 0.0]})
        opt.step(gradients(params))
        assert opt.state_dict()["steps_skipped_in_a_row"] == 0
    assert (opt.step_count, opt.steps_skipped) == (3, 27)


def test_after_the_error_counting_begins_anew():
    params = small()
    opt = nb.optimizer.SGD(0.1, params, nonfinite="skip")
    params["b"].grad = [NAN, 0.0, 0.0]
    for _ in range(2):
        for _ in range(9):
            opt.step()
        refuses_step(opt)
    assert opt.steps_skipped == 20


def test_refusals_in_a_row_are_resumed():
    params = small()
    opt, other = (nb.optimizer.SGD(0.1, params, nonfinite="skip") for _ in range(2))
    params["b"].grad = [NAN, 0.0, 0.0]
    for _ in range(9):
        opt.step()
    other.set_state_dict(opt.state_dict())
    assert "10 refusals in a row" in str(refuses_step(other))


def test_a_skipped_step_is_as_if_it_had_not_been():
    params, plain = small(), small()
    opt = nb.optimizer.Momentum(0.1, parameters=params, nonfinite="skip")
    reference = nb.optimizer.Momentum(0.1, parameters=plain)
    for seed in range(3):
        opt.step(gradients(params, seed))
        opt.step({"w": np.full((2, 3), INF)})
        reference.step(gradients(plain, seed))
    assert params.fingerprint() == plain.fingerprint()


# --- propagate -------------------------------------------------------------------------------------

CLIPS = {kind: Clip(kind, 0.5) for kind in ("value", "norm", "global")} | {"none": None}


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # the loop's arithmetic
@pytest.mark.parametrize("value", BAD.values(), ids=BAD)
@pytest.mark.parametrize("clip", CLIPS.values(), ids=CLIPS)
@pytest.mark.parametrize("rule", RULES)
def test_propagate_is_plain_arithmetic(rule, clip, value):
    params, mu = small(), 0.9 if rule == "Momentum" else 0.0
    opt = RULES[rule](0.1, parameters=params, grad_clip=as_clip(clip), nonfinite="propagate")
    values = params.numpy()
    velocity = dict.fromkeys(values, 0.0)
    bad = gradients(params)
    bad["b"][1] = value
    for grads in (gradients(params, 5), bad, gradients(params, 6)):
        opt.step(grads)
        for name, grad in (clip_grads(clip, grads) if clip else grads).items():
            velocity[name] = mu * velocity[name] + grad if mu else grad
            values[name] = values[name] - 0.1 * velocity[name]
            assert_allclose(params[name].value, values[name], rtol=1e-12, atol=1e-13)
    assert (opt.step_count, opt.steps_skipped) == (3, 0)


@pytest.mark.parametrize("make", [nb.ClipGradByGlobalNorm, nb.ClipGradByNorm])
@pytest.mark.parametrize("value", BAD.values(), ids=BAD)
def test_a_limit_of_inf_only_measures(value, make):
    params, plain = small(), small()
    for p, clip in ((params, make(INF)), (plain, None)):
        opt = nb.optimizer.SGD(0.1, p, grad_clip=clip, nonfinite="propagate")
        opt.step(gradients(p) | {"b": [value, 1.0, 1.0]})
    for name, p in params.items():
        assert_array_equal(p.value, plain[name].value)


# --- finite gradients of any size ------------------------------------------------------------------

# dtype, gradient, limit, clipped gradient (None: untouched). Ids as in the fact sheet.
SIZES = {
    "N01": ("float32", [1e30, 1e30], 1.0, [0.5**0.5] * 2),
    "N02": ("float32", [1e-30] * 4, 1e-31, [5e-32] * 4),
    "N03": ("float64", [1e200, 1e200], 1.0, [0.5**0.5] * 2),
    "N04": ("float64", [1e-200] * 4, 1e-201, [5e-202] * 4),
    "N05": ("float32", [1e-45] * 4, 1.0, None),
    "N5d": ("float64", [5e-324] * 4, 1.0, None),
    "N10": ("float32", [0.0, 0.0], 1.0, None),
    "N11": ("float32", [0.0, 0.0], 0.0, None),
    "N12": ("float64", [3.0, 4.0], 0.0, [0.0, 0.0]),
    "N13": ("float32", [3.0, 4.0], INF, None),
    "N13b": ("float32", [1e30, 1e30], INF, None),
    "N13d": ("float64", [1.7e308] * 4, INF, None),
    "N16": ("float32", [3.4e38] * 4, 1.0, [0.5] * 4),
    "N16d": ("float64", [1.7e308] * 4, 1.0, [0.5] * 4),
    "N18": ("float32", [3e-8, 4e-8], 1e-8, [6e-9, 8e-9]),
    "N18d": ("float64", [3e-8, 4e-8], 1e-8, [6e-9, 8e-9]),
    "N19": ("float32", [3.0, 4.0], 5.0, None),
    "N19d": ("float64", [3.0, 4.0], 5.0, None),
    "N20": ("float32", [2.0, -3.0, 6.0], 0.7, [0.2, -0.3, 0.6]),
    "N20d": ("float64", [2.0, -3.0, 6.0], 0.7, [0.2, -0.3, 0.6]),
    "mixed": ("float64", [1e300, 1.0, 1e-300], 1.0, [1.0, 1e-300, 0.0]),
}
LIMITS = {"global": nb.ClipGradByGlobalNorm, "norm": nb.ClipGradByNorm}


def clipped_by_step(make, dtype, grad, limit):
    """The clipped gradient as a step of rate 1 from zero applies it, and the optimizer."""
    params = nb.ParameterBuffer.from_arrays({"p": np.zeros(len(grad))}, dtype=dtype)
    opt = nb.optimizer.SGD(1.0, params, grad_clip=make(limit))
    opt.step({"p": np.asarray(grad, dtype)})
    return -params["p"].value, opt


@pytest.mark.parametrize("make", LIMITS.values(), ids=LIMITS)
@pytest.mark.parametrize(("dtype", "grad", "limit", "expected"), expand("", SIZES))
def test_clip_of_any_size(dtype, grad, limit, expected, make):
    given = np.asarray(grad, dtype)
    clipped, opt = clipped_by_step(make, dtype, grad, limit)
    with np.errstate(over="ignore"):
        assert_allclose(opt.grad_norm, float(np.sqrt(np.sum(given.astype(np.longdouble) ** 2))), rtol=1e-14)
    if expected is None:
        assert_array_equal(clipped, given, strict=True)
        assert opt.clip_coefficients == {"p": 1.0}
        return
    margin = {"float32": 2.0**-22, "float64": 2.0**-44}[dtype]
    assert_allclose(clipped, np.multiply(expected, 1 - margin), rtol=2 * np.finfo(dtype).eps)
    assert sum(Fraction(float(x)) ** 2 for x in clipped) <= Fraction(limit) ** 2  # exactly
    again, _ = clipped_by_step(make, dtype, clipped, limit)
    assert_array_equal(again, clipped, strict=True)  # N20


def test_one_norm_over_huge_and_tiny():
    params = nb.ParameterBuffer.from_arrays({"huge": np.zeros(2), "tiny": np.zeros(2), "one": np.zeros(1)})
    opt = nb.optimizer.SGD(1.0, params, grad_clip=nb.ClipGradByGlobalNorm(1.0))
    opt.step({"huge": [3e250, 4e250], "tiny": [1e-250] * 2, "one": [1.0]})
    assert_allclose(params["huge"].value, [-0.6, -0.8], rtol=1e-12)
    assert_allclose(params["tiny"].value, 0.0, atol=1e-300)
    assert_allclose(opt.grad_norm, 5e250, rtol=1e-14)


@pytest.mark.parametrize("rescale", [1e200, 1e-200])
def test_rescale_of_any_size(rescale):
    params = nb.ParameterBuffer.from_arrays({"p": np.zeros(2)})
    clip = nb.ClipGradByGlobalNorm(1.0)
    opt = nb.optimizer.Momentum(1.0, 0.0, params, grad_clip=clip, rescale_grad=rescale)
    opt.step({"p": [3e201, 4e201]})
    assert_allclose(params["p"].value, [-0.6, -0.8], rtol=1e-12)


@pytest.mark.parametrize("nonfinite", ["raise", "skip", "propagate"])
@pytest.mark.parametrize("size", [1e30, 1e200, 1.7e308, 5e-324])
def test_a_finite_gradient_is_never_refused(size, nonfinite):
    params = nb.ParameterBuffer.from_arrays({"p": np.zeros(4)})
    opt = nb.optimizer.SGD(0.5, params, nonfinite=nonfinite)
    opt.step({"p": np.full(4, size)})
    assert_array_equal(params["p"].value, np.full(4, -(0.5 * size)))
    assert (opt.step_count, opt.steps_skipped) == (1, 0)


@pytest.mark.parametrize("dim", [0, 1, None])
@pytest.mark.parametrize("size", [1e200, 1e-200])
def test_weight_norm_of_any_size(size, dim):
    """Clipping takes the size away, so the step is that of a gradient of size 1."""
    results = []
    for scale in (1.0, size):
        params = normed(dim=dim)
        opt = nb.optimizer.Momentum(0.1, parameters=params, grad_clip=nb.ClipGradByGlobalNorm(0.1 * scale))
        opt.set_lr(0.1 / scale)
        opt.step({"w": gradients(params)["w"] * scale})
        assert opt.state_dict()["w_v.step"] == 1
        results.append(params["w"].value)
    assert_allclose(results[1], results[0], rtol=1e-12)


# --- two threads -----------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", RULES)
def test_a_step_while_another_thread_is_in_one(rule):
    params = small()
    opt = RULES[rule](0.1, parameters=params)
    opt.step(gradients(params))
    busy = opt._tables.counters[tables.BUSY :][:1]

    def meanwhile(call):
        busy[0] = 1
        try:
            call()
        finally:
            busy[0] = 0

    words = f"another thread {type(opt).__name__}"
    calls = opt.step, lambda: opt.step({"b": [5.0, 5.0, 5.0]}), lambda: opt.minimize(no_grad_set=["w"])
    for call in calls:
        refuses(partial(meanwhile, call), ConcurrencyError, words, params, opt)
    assert isinstance(ConcurrencyError(""), RuntimeError)
    opt.step(gradients(params))
    assert opt.step_count == 2


def run_together(*functions):
    workers = [threading.Thread(target=function) for function in functions]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()


def test_one_optimizer_in_two_threads_is_refused_not_torn():  # C02
    params = nb.ParameterBuffer.from_arrays({"p": np.zeros(2_000_000, np.float32)})
    params["p"].grad = np.ones(2_000_000)
    opt = nb.optimizer.SGD(1.0, params)
    opt.compile()
    start, taken, refused = threading.Barrier(2), [], []

    def work():
        numba.set_num_threads(1)  # for this thread: no lock of a threading layer shall help
        start.wait()
        for _ in range(200):
            try:
                opt.step()
                taken.append(1)
            except ConcurrencyError:
                refused.append(1)
            if len(refused) > 3:
                return

    run_together(work, work)
    assert refused
    assert opt.step_count == len(taken)
    assert_array_equal(params["p"].value, np.float32(-opt.step_count))


def test_two_optimizers_in_two_threads_step_as_alone():  # C01
    models = [small(seed=seed) for seed in (0, 1, 0, 1)]

    def work(index):
        params = models[index]
        opt = nb.optimizer.Momentum(0.1, parameters=params, grad_clip=nb.ClipGradByGlobalNorm(0.5))
        for seed in range(50):
            opt.step(gradients(params, seed))

    work(0)
    work(1)
    run_together(partial(work, 2), partial(work, 3))
    assert [p.fingerprint() for p in models[2:]] == [p.fingerprint() for p in models[:2]]


def test_a_refused_step_reports_nothing():
    params = nb.ParameterBuffer.from_arrays({"w": [1.0], "b": [1.0]})
    clip = nb.ClipGradByGlobalNorm(1.0)
    opt = nb.optimizer.SGD(0.1, parameters=params, grad_clip=clip, nonfinite="skip")
    opt.step({"w": [3.0], "b": [4.0]})
    assert opt.grad_norm == 5.0
    opt.step({"w": [np.nan], "b": [4.0]})
    assert opt.steps_skipped == 1
    assert opt.grad_norm is None
    assert opt.clip_coefficients == {}
