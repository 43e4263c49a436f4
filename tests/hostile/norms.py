"""Norms of gradients, and the clip by them, at the ends of the range and with what is no number."""

import math

import numpy as np
from numpy.testing import assert_allclose

import nbopt as nb
from nbopt.errors import HyperparameterError, NonFiniteGradientError, ParameterError
from tests.hostile import F32, F64, buffer, refused, same, stepped
from tests.kernels import exact_square, exact_squares

# --- one gradient by every road -------------------------------------------------------------------


def every_road(grads, limit, dtype):
    """Norm and clipped gradients, alike from a clip on arrays, in place, and in a step."""
    arrays = {name: np.asarray(grad, dtype) for name, grad in grads.items()}
    clip = nb.ClipGradByGlobalNorm(limit)
    clipped = clip(arrays)
    params = buffer(dtype, **{name: np.zeros_like(array) for name, array in arrays.items()})
    params.set_grads(arrays)
    opt = nb.optimizer.SGD(1.0, params, grad_clip=clip)
    opt.step()
    for name, param in params.items():
        same(param.value + 0.0, 0.0 - clipped[name])  # + 0.0: the sign of a zero
        same(param.grad, arrays[name])  # a step leaves it alone
    norm = nb.clip_grad_norm_(params, limit)
    for name, param in params.items():
        same(param.grad, clipped[name])
    assert opt.grad_norm == norm
    if len(arrays) == 1:
        assert nb.norm(*arrays.values()) == norm
    return norm, clipped


def by_the_formula(grad, norm, limit):
    """`limit * (1 - 2**-22) / norm` in float64, rounded once unless it is subnormal; no epsilon."""
    if norm <= limit:
        return grad
    coefficient = limit * (1 - (2.0**-22 if grad.dtype == F32 else 2.0**-44)) / norm
    if coefficient and coefficient < np.finfo(grad.dtype).smallest_normal:
        return (coefficient * grad.astype(F64)).astype(grad.dtype)
    return grad.dtype.type(coefficient) * grad


def clips(dtype, limit, norm, *grads, to=None):
    """Every road gives this norm to the last bits, and what the formula makes of the gradients, or `to`."""
    named = {f"p{i}": np.asarray(grad, dtype) for i, grad in enumerate(grads)}
    found, clipped = every_road(named, limit, dtype)
    assert_allclose(found, norm, rtol=2**-51, atol=0)
    for name, grad in named.items():
        same(clipped[name], by_the_formula(grad, found, limit))
        if to is not None:
            assert_allclose(clipped[name], to, rtol=1e-6)
    assert norm <= limit or exact_squares(clipped.values()) <= exact_square(limit)


def huge_float32():
    clips(F32, 1.0, math.hypot(F32(1e30), F32(1e30)), [1e30, 1e30], to=0.70710678)


def tiny_float32():
    clips(F32, 1e-31, 2 * float(F32(1e-30)), [1e-30] * 4, to=5e-32)


def huge_float64():
    clips(F64, 1.0, math.hypot(1e200, 1e200), [1e200, 1e200], to=0.70710678)


def tiny_float64():
    clips(F64, 1e-201, 2e-200, [1e-200] * 4, to=5e-202)


def subnormal_float32():
    clips(F32, 1.0, 2 * float(F32(1e-45)), [1e-45] * 4, to=F32(1e-45))


def subnormal_float64():
    clips(F64, 1.0, 1e-323, [5e-324] * 4, to=5e-324)


def half_precision():
    grads = {"a": np.full(4, 300, np.float16), "b": np.float16([60000])}
    clipped = nb.ClipGradByGlobalNorm(1.0)(grads)
    assert {array.dtype for array in clipped.values()} == {np.dtype(F64)}
    assert_allclose(clipped["b"], 60000 / math.hypot(600, 60000), rtol=1e-12)
    params = buffer(a=np.zeros(4), b=np.zeros(1))
    params.set_grads(grads)  # float16 is a float32 exactly
    assert_allclose(nb.clip_grad_norm_(params, 1.0), math.hypot(600, 60000), rtol=2**-51)


def half_precision_overflow():
    grads = {"a": np.float16([60000]), "b": np.float16([60000])}
    clipped = nb.ClipGradByGlobalNorm(1.0)(grads)
    assert_allclose([*clipped["a"], *clipped["b"]], math.sqrt(0.5), rtol=1e-12)
    assert_allclose(nb.norm(np.float16([60000, 60000])), 84852.8137423857, rtol=1e-14)


def bfloat16():
    raw = np.zeros(2, "V2")  # as ml_dtypes shows bfloat16 to NumPy
    for call in (
        lambda: nb.norm(raw),
        lambda: nb.ClipGradByNorm(0.5)({"w": raw}),
        lambda: buffer(w=[0.0, 0.0])["w"].set_value(raw),
        lambda: buffer(w=[0.0, 0.0]).set_grads({"w": raw}),
    ):
        refused(call, TypeError, "real numbers")
    widened = F32([1.0, 0.00099945068359375])  # bfloat16 of 1 and 1e-3
    clips(F32, 0.5, math.hypot(*widened.tolist()), widened)


# --- what is no number ----------------------------------------------------------------------------


def bad_element(value):
    """Refused with name and index, and nothing moves; skipped alike; propagated if asked to."""
    grads = {"a": [1.0, value], "b": [1.0, 1.0]}
    for mode in ("raise", "skip"):
        params = buffer(a=[1.0, 2.0], b=[3.0, 4.0])
        clip = nb.ClipGradByGlobalNorm(1.0)
        opt = nb.optimizer.Momentum(0.1, parameters=params, grad_clip=clip, nonfinite=mode)
        before = params.fingerprint(), opt.state_dict() | {"steps_skipped": 1, "steps_skipped_in_a_row": 0}
        if mode == "raise":
            error = refused(lambda o=opt: o.step(grads), NonFiniteGradientError, "'a'", "(1,)", "step 1")
            assert (error.name, error.index, error.step) == ("a", (1,), 1)
        else:
            opt.step(grads)
        after = opt.state_dict() | {"steps_skipped_in_a_row": 0}
        assert params.fingerprint() == before[0]
        assert repr(after) == repr(before[1])
        opt.step({"a": [1.0, 0.0], "b": [0.0, 0.0]})  # the velocity is clean
        same(params["a"].value, F32([F32(1) - F32(0.1), 2]))


def a_nan():
    bad_element(math.nan)


def an_infinity():
    bad_element(math.inf)


def error_if_nonfinite():
    params = buffer(a=[1.0, 2.0], b=[3.0, 4.0])
    params.set_grads({"a": [1.0, 1.0], "b": [1.0, math.inf]})
    before = params.flat_grad.copy()
    error = refused(
        lambda: nb.clip_grad_norm_(params, 1.0, error_if_nonfinite=True), NonFiniteGradientError, "'b'"
    )
    assert (error.name, error.index) == ("b", (1,))
    same(params.flat_grad, before)


def infinity_and_nan():
    for dtype in (F32, F64):
        for bad in ([math.inf, math.nan], [math.nan, math.inf]):
            assert math.isnan(nb.norm(np.asarray(bad, dtype)))
    error = refused(
        lambda: stepped([0.0, 0.0], [math.inf, math.nan]), NonFiniteGradientError, "'w' is inf at (0,)"
    )
    assert error.index == (0,)


def no_false_alarm():
    for dtype, value in ((F32, 1e30), (F64, 1e200)):
        params = buffer(dtype, w=[0.0, 0.0])
        params.set_grads({"w": [value, value]})
        norm = nb.clip_grad_norm_(params, 1.0, error_if_nonfinite=True)
        assert_allclose(norm, math.sqrt(2) * float(dtype(value)), rtol=2**-51)
        stepped([0.0, 0.0], [value, value], dtype)


def above_float32():
    clips(F32, 6.8e37, 2 * float(F32(3.4e38)), [3.4e38] * 4, to=3.4e37)
    clips(F32, 1.0, 2 * float(F32(3.4e38)), [3.4e38] * 4, to=0.5)


def above_float64():
    norm, clipped = every_road({"w": [1.7e308] * 4}, 1.0, F64)
    assert norm == math.inf
    assert_allclose(clipped["w"], 0.5 * (1 - 2.0**-44), rtol=2**-51)
    assert exact_squares(clipped.values()) <= exact_square(1.0)
    params = buffer(F64, w=[0.0] * 4)
    params.set_grads({"w": [1.7e308] * 4})
    assert nb.clip_grad_norm_(params, 1.0, error_if_nonfinite=True) == math.inf  # no element is


# --- limits ---------------------------------------------------------------------------------------


def zeros_within_one():
    clips(F32, 1.0, 0.0, [0.0, 0.0], to=0.0)


def zeros_within_zero():
    clips(F32, 0.0, 0.0, [0.0, 0.0], to=0.0)


def zeros_within_zero_each():
    same(nb.ClipGradByNorm(0.0)({"w": F32([0, 0])})["w"], F32([0, 0]))
    same(stepped([1.0, 2.0], [0.0, 0.0], grad_clip=nb.ClipGradByNorm(0.0))[1], F32([1, 2]))


def limit_zero():
    clips(F32, 0.0, 5.0, [3.0, 4.0], to=0.0)


def limit_zero_for_all():
    for clip in (nb.ClipGradByNorm(0), nb.ClipGradByGlobalNorm(0), nb.ClipGradByValue(0)):
        same(clip({"w": F32([3, 4])})["w"], F32([0, 0]))
        same(stepped([1.0, 2.0], [3.0, 4.0], grad_clip=clip)[1], F32([1, 2]))


def limit_infinity():
    clips(F32, math.inf, 5.0, [3.0, 4.0], to=[3.0, 4.0])


def limit_infinity_of_huge():
    clips(F32, math.inf, math.hypot(F32(1e30), F32(1e30)), [1e30, 1e30], to=1e30)


CLIPS = nb.ClipGradByNorm, nb.ClipGradByGlobalNorm


def bad_limit(value, error):
    for clip in CLIPS:
        refused(lambda clip=clip: clip(value), error, clip.__name__, "clip_norm")
    refused(lambda: nb.ClipGradByValue(value), error, "ClipGradByValue max")
    refused(lambda: nb.clip_grad_norm_([], value), error, "max_norm")
    refused(lambda: nb.clip_grad_value_([], value), error, "clip_value")


def limit_negative():
    bad_limit(-1.0, HyperparameterError)


def limit_nan():
    bad_limit(math.nan, HyperparameterError)


def limits_of_every_kind():
    for value in (-1, -math.inf, math.nan, F32(-1), F64(math.nan), np.array([-1.0]), -(10**400)):
        bad_limit(value, HyperparameterError)
    for value in (None, "abc", "1.0", b"1", 1j, [1.0], np.ones(2), True, np.True_, object()):
        bad_limit(value, TypeError)


def limit_a_text():
    bad_limit("1.0", TypeError)


def no_epsilon():
    clips(F32, 1e-8, math.hypot(F32(3e-8), F32(4e-8)), [3e-8, 4e-8], to=[6e-9, 8e-9])


def exactly_the_limit():
    clips(F32, 5.0, 5.0, [3.0, 4.0], to=[3.0, 4.0])
    clips(F64, 5.0, 5.0, [3.0, 4.0], to=[3.0, 4.0])


def many_clips(dtype, count):
    """Never above the limit; a second clip changes nothing; at the norm itself neither does a first."""
    rng = np.random.default_rng(0)
    for _ in range(count):
        grad = (rng.standard_normal(rng.integers(1, 60)) * 10 ** rng.uniform(-15, 15)).astype(dtype)
        norm = nb.norm(grad)
        limit = float(norm * rng.uniform(0, 1))
        clip = nb.ClipGradByGlobalNorm(limit)
        once = clip({"w": grad})
        assert exact_squares(once.values()) <= exact_square(limit)
        same(clip(once)["w"], once["w"])
        same(nb.ClipGradByGlobalNorm(norm)({"w": grad})["w"], grad)


def five_times():
    rng = np.random.default_rng(1)
    params = buffer(w=np.zeros(1000))
    params.set_grads({"w": rng.standard_normal(1000)})
    nb.clip_grad_norm_(params, 1.0)
    once = params["w"].grad.copy()
    for _ in range(5):
        nb.clip_grad_norm_(params, 1.0)
        same(params["w"].grad, once)


def never_above():
    many_clips(F32, 200)


# --- other arguments ------------------------------------------------------------------------------


def bad_order(value):
    params = buffer(w=[3.0, 4.0])
    refused(lambda: nb.clip_grad_norm_(params, 1.0, norm_type=value), HyperparameterError, "norm_type", "> 0")


def order_zero():
    bad_order(0)


def order_negative():
    bad_order(-2)


def order_nan():
    bad_order(math.nan)


def nothing_to_clip():
    assert nb.clip_grad_norm_([], 1.0) == 0.0
    assert nb.ClipGradByGlobalNorm(1.0)({}) == {}
    assert nb.norm([]) == 0.0


def a_generator_twice():
    params = buffer(w=[0.0, 0.0])
    params.set_grads({"w": [3.0, 4.0]})
    once = (p for p in params.values())
    assert nb.clip_grad_norm_(once, math.inf) == 5.0
    refused(lambda: nb.clip_grad_norm_(once, math.inf), ParameterError, "generator")
    refused(lambda: nb.clip_grad_value_(once, 1.0), ParameterError, "generator")
    refused(lambda: nb.optimizer.SGD(0.1, once), ParameterError)
    refused(lambda: nb.optimizer.SGD(0.1, [{"params": once}]), ParameterError)


def mixed_precision():
    grads = {"a": np.float16([3]), "b": F64([4]), "c": F32([0])}
    clipped = nb.ClipGradByGlobalNorm(1.0)(grads)
    assert [array.dtype for array in clipped.values()] == [F64, F64, F32]
    same(clipped["a"], by_the_formula(F64([3]), 5.0, 1.0))
    same(clipped["b"], by_the_formula(F64([4]), 5.0, 1.0))


def a_complex_gradient():
    grad = np.complex64([3 + 4j])
    for call in (
        lambda: nb.norm(grad),
        lambda: nb.ClipGradByGlobalNorm(1.0)({"w": grad}),
        lambda: stepped([0.0], grad),
    ):
        refused(call, TypeError, "real numbers", "complex64")
