"""One step after another: edits of attributes, absent and frozen parameters, what is handed in."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import nbopt as nb
from nbopt.errors import HyperparameterError, ParameterError
from tests.optimizer import RULES, Twin, as_decay, expand, gradients, normed, refuses, small
from tests.oracle import Clip, Decay

NAN, INF = float("nan"), float("inf")

# --- refused ---------------------------------------------------------------------------------------

SETTERS = {
    "rate-negative": ("learning_rate", -1, HyperparameterError, ">= 0 -1.0"),
    "rate-nan": ("learning_rate", NAN, HyperparameterError, "finite nan"),
    "rate-inf": ("learning_rate", INF, HyperparameterError, "finite inf"),
    "rate-string": ("learning_rate", "1", TypeError, "number '1'"),
    "rate-true": ("learning_rate", True, TypeError, "number True"),
    "rate-none": ("learning_rate", None, TypeError, "number None"),
    "regularizer-number": ("regularizer", 0.1, TypeError, "L1Decay L2Decay 0.1"),
    "regularizer-class": ("regularizer", nb.regularizer.L1Decay, TypeError, "L1Decay L2Decay"),
    "need-clip-int": ("need_clip", 1, TypeError, "True False 1"),
    "need-clip-none": ("need_clip", None, TypeError, "True False None"),
    "trainable-int": ("trainable", 0, TypeError, "True False 0"),
    "stop-gradient": ("stop_gradient", "no", TypeError, "True False 'no'"),
    "average": ("do_model_average", 1.0, TypeError, "True False 1.0"),
    "value-shape": ("value", [1.0, 2.0], ParameterError, "(2,) (2, 3)"),
    "value-scalar": ("value", 1.0, ParameterError, "() (2, 3)"),
    "value-complex": ("value", np.ones((2, 3), complex), TypeError, "complex128"),
    "value-boolean": ("value", np.ones((2, 3), bool), TypeError, "bool"),
    "value-too-large": ("value", np.full((2, 3), 1e300), ParameterError, "float32 1e+300"),
    "grad-shape": ("grad", np.ones((3, 2)), ParameterError, "(3, 2) (2, 3)"),
    "grad-broadcast": ("grad", np.ones((1, 3)), ParameterError, "(1, 3) (2, 3)"),
    "grad-string": ("grad", "g", TypeError, "real"),
    "grad-ragged": ("grad", [[1.0], [1.0, 2.0]], ParameterError, "array of numbers"),
    "grad-too-large": ("grad", np.full((2, 3), -1e39), ParameterError, "float32 (0, 0)"),
}


@pytest.mark.parametrize(("attribute", "value", "error", "words"), expand("", SETTERS))
def test_attribute_refused(attribute, value, error, words):
    params = small("float32")
    opt = nb.optimizer.Momentum(parameters=params)
    opt.step(gradients(params))
    what = attribute if attribute != "grad" else "gradient"
    refuses(lambda: setattr(params["w"], attribute, value), error, f"{what} 'w' {words}", params, opt)


PARTS = {
    "grad-of-v": ("w_v", "grad", np.ones((2, 3)), ParameterError, "'w_v' 'w'"),
    "grad-of-g": ("w_g", "grad", np.ones((2, 1)), ParameterError, "'w_g' 'w'"),
    "zero-slice": ("w", "value", [[0.0] * 3, [1.0] * 3], ParameterError, "'w' slice 0"),
    "shape-of-g": ("w_g", "value", [1.0, 2.0], ParameterError, "'w_g' (2, 1)"),
}


@pytest.mark.parametrize(("name", "attribute", "value", "error", "words"), expand("", PARTS))
def test_part_of_a_weight_refused(name, attribute, value, error, words):
    params = normed()
    opt = nb.optimizer.Momentum(parameters=params)
    refuses(lambda: setattr(params[name], attribute, value), error, words, params, opt)


W, B = np.ones((2, 3)), np.ones(3)
STEPS = {
    "unknown-name": ({"w": W, "weight": W}, ParameterError, "'weight' w, b, k"),
    "number-as-name": ({"w": W, 3: B}, ParameterError, "unknown 3"),
    "O19-shape": ({"w": W, "b": np.ones(4)}, ParameterError, "'b' (4,) (3,)"),
    "O19b-broadcast": ({"b": B, "w": np.ones((2, 1))}, ParameterError, "'w' (2, 1) (2, 3)"),
    "O14-complex": ({"w": W, "b": B + 0j}, TypeError, "'b' complex128"),
    "boolean": ({"b": [True, False, True]}, TypeError, "'b' bool"),
    "string": ({"b": ["1", "2", "3"]}, TypeError, "'b' real numbers"),
    "object": ({"w": W, "b": [None, 1.0, 2.0]}, TypeError, "'b' object"),
    "ragged": ({"w": [[1.0], [1.0, 2.0]]}, ParameterError, "'w'"),
    "S12-too-large": ({"w": W, "b": [0.0, 1e300, 0.0]}, ParameterError, "'b' float32 (1,) 1e+300"),
    "vector-short": (np.ones(10), ParameterError, "(10,) (11,)"),
    "vector-long": (np.ones(12), ParameterError, "(12,) (11,)"),
    "matrix": (np.ones((11, 1)), ParameterError, "(11, 1) (11,)"),
    "vector-complex": (np.ones(11) * 1j, TypeError, "complex128"),
    "number": (1.0, ParameterError, "() (11,)"),
    "text": ("gradients", TypeError, "real"),
    "list-of-arrays": ([W, B, np.ones(2)], ParameterError, "gradients by name mapping"),
    "closure": (lambda: 1.0, TypeError, "gradients by name mapping"),
}


@pytest.mark.parametrize(("grads", "error", "words"), expand("", STEPS))
def test_gradients_refused(grads, error, words):
    params = small("float32")
    params["k"].clear_grad(set_to_zero=False)
    opt = nb.optimizer.Momentum(parameters=params)
    opt.step()
    refuses(lambda: opt.step(grads), error, words, params, opt)


CALLS = {
    "set-lr-nan": (lambda o: o.set_lr(NAN), HyperparameterError, "learning_rate nan"),  # O22
    "set-lr-negative": (lambda o: o.set_lr(-0.1), HyperparameterError, "learning_rate >= 0 -0.1"),
    "set-lr-string": (lambda o: o.set_lr("0.1"), TypeError, "learning_rate '0.1'"),
    "set-lr-schedule": (lambda o: o.set_lr(nb.optimizer.lr.StepDecay(0.1, 1)), TypeError, "set_lr_scheduler"),
    "set-lr-none": (lambda o: o.set_lr(None), TypeError, "learning_rate None"),
    "clear-grad": (lambda o: o.clear_grad(0), TypeError, "set_to_zero True False 0"),
    "step-count": (lambda o: setattr(o, "step_count", 3), AttributeError, "step_count"),
    "parameters": (lambda o: setattr(o, "parameters", []), AttributeError, "parameters"),
}


@pytest.mark.parametrize(("call", "error", "words"), expand("", CALLS))
def test_call_refused(call, error, words):
    params = small()
    opt = nb.optimizer.Momentum(parameters=params)
    refuses(lambda: call(opt), error, words, params, opt)


# --- edits between steps ---------------------------------------------------------------------------

EDITS = {
    "learning_rate": [0.5, 0, np.float32(2.0)],
    "regularizer": [Decay(l1=0.1), Decay(l2=0.3), Decay(), None],
    "need_clip": [False, True],
    "trainable": [False, True, False],
}


@pytest.mark.parametrize("names", [["w"], ["w_g", "w_v"], ["w_v"], ["w_g"]], ids="-".join)
@pytest.mark.parametrize("attribute", EDITS)
def test_edited_attribute_is_obeyed_by_the_next_step(attribute, names):
    dims = {} if names == ["w"] else {"w": 0}
    options = {"weight_decay": Decay(l2=0.2), "grad_clip": Clip("global", 0.5)}
    twin = Twin("Momentum", normed().numpy(), dims=dims, **options)
    twin.step(gradients(twin.params))
    for seed, value in enumerate(EDITS[attribute]):
        mine = as_decay(value) if isinstance(value, Decay) else value
        setattr(twin.params["w" if len(names) == 2 else names[0]], attribute, mine)
        for name in names:
            setattr(twin.reference[name], attribute, getattr(value, "item", lambda v=value: v)())
        twin.step(gradients(twin.params, seed))


def test_set_lr_is_obeyed_by_the_next_step():
    twin = Twin("Momentum", small().numpy())
    for seed, rate in enumerate([0.1, 0.0, np.float32(0.25), np.array([2]), 1]):
        twin.opt.set_lr(rate)
        twin.options["learning_rate"] = float(np.ravel(rate)[0])
        assert twin.opt.get_lr() == twin.options["learning_rate"]
        twin.step(gradients(twin.params, seed))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("rule", RULES)
def test_plain_loop(rule, dtype):
    """The bits of the plain NumPy loop, in the dtype of the storage."""
    params, opt_of = small(dtype), {"Momentum": {"momentum": 0.9}, "SGD": {}}
    opt = RULES[rule](0.1, parameters=params, weight_decay=0.01, **opt_of[rule])
    number = np.dtype(dtype).type
    rate, mu, decay = number(0.1), number(0.9 if rule == "Momentum" else 0.0), number(0.01)
    values = params.numpy()
    velocity = {name: np.zeros_like(value) for name, value in values.items()}
    for seed in range(10):
        grads = gradients(params, seed)
        opt.step(grads)
        for name, grad in grads.items():
            velocity[name] = mu * velocity[name] + (grad + decay * values[name])
            values[name] = values[name] - rate * velocity[name]
            assert_array_equal(params[name].value, values[name], strict=True)


# --- absent, frozen, standing still ----------------------------------------------------------------


def test_absent_gradients_are_skipped():
    twin = Twin("Momentum", normed().numpy(), dims={"w": 0}, weight_decay=Decay(l2=0.5))
    full = gradients(twin.params)
    zero = {name: np.zeros_like(grad) for name, grad in full.items()}
    steps = [full, full | {"w": None}, {"w": full["w"]}, {}, zero, full | {"b": None}, zero]
    for grads in steps:
        twin.step(grads)
    assert [twin.opt.state_dict()[f"{n}.step"] for n in ("w_v", "w_g", "b")] == [5, 5, 4]
    assert twin.opt.step_count == len(steps)


@pytest.mark.parametrize("make", [small, normed])
@pytest.mark.parametrize("clear", ["parameter", "buffer", "optimizer", "none"])
def test_absent_until_written(clear, make):
    params = make()
    opt = nb.optimizer.Momentum(0.1, parameters=params, weight_decay=0.5)
    opt.step(gradients(params))
    w, steps = params["w"], lambda: opt.state_dict()["w_v.step" if make is normed else "w.step"]
    match clear:
        case "parameter":
            w.clear_grad(set_to_zero=False)
        case "buffer":
            params.clear_grad(set_to_zero=False)
        case "optimizer":
            opt.clear_grad(set_to_zero=False)
        case _:
            w.grad = None
    assert not w.grad.any()  # and reading it does not make it present
    before = w.numpy()
    opt.step()
    assert steps() == 1
    assert_array_equal(w.value, before)
    w.grad[0, 1] = 1e-30  # any element that is not zero
    opt.step()
    assert steps() == 2
    assert (w.value != before).any()
    w.clear_grad(set_to_zero=False)
    opt.step()
    assert steps() == 2
    w.grad = np.zeros((2, 3))  # assigned: a zero gradient is a gradient
    opt.step()
    opt.zero_grad()
    opt.step()
    assert steps() == 4


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_frozen_bit_for_bit(dtype):
    params = small(dtype)
    opt = nb.optimizer.Momentum(0.1, parameters=params, weight_decay=0.5)
    opt.step(gradients(params))
    params.freeze("w")
    params["w"].value[0, 0] = -0.0
    params["w"].value[0, 1] = NAN
    bits, state = params["w"].value.tobytes(), opt.state_dict()
    for seed in range(3):
        opt.step(gradients(params, seed))
    assert params["w"].value.tobytes() == bits
    assert_array_equal(opt.state_dict()["w.velocity"], state["w.velocity"])
    assert (opt.state_dict()["w.step"], opt.state_dict()["b.step"]) == (1, 4)
    assert "w" not in opt.clip_coefficients


@pytest.mark.parametrize("where", ["optimizer", "group", "parameter"])
def test_rate_zero_accumulates_velocity(where):
    params = small()
    opt = nb.optimizer.Momentum(0.0 if where == "optimizer" else 0.1, 0.5, params)
    if where == "group":
        opt.param_groups[0]["learning_rate"] = 0.0
    elif where == "parameter":
        for p in params.values():
            p.learning_rate = 0.0
    before, grads = params.fingerprint(), gradients(params)
    for _ in range(3):
        opt.step(grads)
    assert params.fingerprint() == before
    for name, grad in grads.items():
        assert_allclose(opt.state_dict()[f"{name}.velocity"], 1.75 * grad, rtol=1e-15)
        assert opt.state_dict()[f"{name}.step"] == 3


# --- what is handed to a step ----------------------------------------------------------------------


def test_left_out_names_are_absent():
    params = small()
    opt = nb.optimizer.Momentum(0.1, parameters=[params["w"], params["b"]], weight_decay=0.5)
    params["k"].grad = [1.0, 2.0]  # not this optimizer's
    opt.step(gradients(params))
    opt.step({"b": [0.0, 0.0, 0.0]})
    opt.step({})
    state = opt.state_dict()
    assert [state["w.step"], state["b.step"], state["step_count"]] == [1, 2, 3]
    assert [params[name].has_grad for name in "wbk"] == [False, False, True]


@pytest.mark.parametrize("form", ["dict", "vector", "list", "assigned", "written", "float32"])
def test_gradients_in_every_form(form):
    params, plain = normed(), normed()
    opt, reference = nb.optimizer.SGD(0.5, params), nb.optimizer.SGD(0.5, plain)
    grads = {name: np.round(grad * 8) / 8 for name, grad in gradients(params).items()}
    vector = np.concatenate([grads["w"].ravel(), grads["b"]])
    match form:
        case "dict":
            opt.step({name: grad.tolist() for name, grad in grads.items()})
        case "float32":
            opt.step({name: grad.astype(np.float32) for name, grad in grads.items()})
        case "vector" | "list":
            opt.step(vector if form == "vector" else vector.tolist())
        case _:
            for name, grad in grads.items():
                if form == "assigned":
                    params[name].grad = grad
                else:
                    params[name].grad[...] = grad
            opt.step()
    reference.step(grads)
    assert params.fingerprint() == plain.fingerprint() != normed().fingerprint()


def test_a_step_leaves_gradients_alone():  # D12
    params = small()
    grads = gradients(params)
    given = {name: grad.copy() for name, grad in grads.items()}
    clip = nb.ClipGradByGlobalNorm(0.1)
    opt = nb.optimizer.Momentum(0.1, 0.9, params, weight_decay=0.1, grad_clip=clip, rescale_grad=3.0)
    opt.step(given)
    assert list(given) == list(grads)
    for name, grad in grads.items():
        assert_array_equal(given[name], grad)
        assert_array_equal(params[name].grad, grad)


def test_two_optimizers_on_one_buffer():
    values, state = small().numpy(), {}
    params = small()
    first = nb.optimizer.Momentum(0.1, 0.9, params, grad_clip=nb.ClipGradByGlobalNorm(0.5))
    second = nb.optimizer.Momentum(0.2, 0.5, [params["w"], params["k"]])
    for seed in range(4):
        opt, rate, mu = (first, 0.1, 0.9) if seed % 2 == 0 else (second, 0.2, 0.5)
        grads = gradients(params, seed)
        total = np.sqrt(sum(np.sum(g * g) for g in grads.values()))
        opt.step(grads)
        for name in [p.name for p in opt.parameters]:
            grad = grads[name] * min(1.0, 0.5 / total) if opt is first else grads[name]
            state[opt, name] = mu * state.get((opt, name), 0.0) + grad
            values[name] = values[name] - rate * state[opt, name]
            assert_allclose(params[name].value, values[name], rtol=1e-12)
            assert_allclose(opt.state_dict()[f"{name}.velocity"], state[opt, name], rtol=1e-12)
    assert (first.step_count, second.step_count) == (2, 2)
