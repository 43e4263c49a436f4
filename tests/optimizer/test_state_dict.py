"""What an optimizer remembers: its dictionary, loading it, copies and pickles."""

import copy
import pickle
from functools import partial

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import nbopt as nb
from nbopt.errors import NonFiniteGradientError, StateDictError
from tests.optimizer import RULES, expand, frozen_bytes, gradients, normed, picture, refuses, small

NAN, INF = float("nan"), float("inf")
SCALARS = {"rule", "learning_rate", "step_count", "steps_skipped", "steps_skipped_in_a_row"}


def run(params, opt, steps):
    for seed in steps:
        opt.step(gradients(params, seed))


def rich(params):
    """An optimizer with every kind of policy."""
    named = nb.ClipGradByGlobalNorm(0.5, group_name="all")
    groups = [
        {"params": params["w"], "momentum": 0.5, "weight_decay": nb.regularizer.L1Decay(0.1)},
        {"params": params["b"], "use_nesterov": True, "grad_clip": named, "learning_rate": 2.0},
    ]
    clip = nb.ClipGradByGlobalNorm(0.5, group_name="all")
    return nb.optimizer.Momentum(0.1, 0.9, groups, weight_decay=0.01, grad_clip=clip, name="rich")


# --- what is in it ---------------------------------------------------------------------------------


def test_keys():
    params = normed()
    state = nb.optimizer.Momentum(0.1, parameters=params).state_dict()
    arrays = {"w_v.velocity": (2, 3), "w_g.velocity": (2, 1), "b.velocity": (3,)}
    assert set(state) == {*arrays, "w_v.step", "w_g.step", "b.step", *SCALARS}
    for key, shape in arrays.items():
        assert_array_equal(state[key], np.zeros(shape), strict=True)
    assert set(nb.optimizer.SGD(0.1, small()).state_dict()) == {"w.step", "b.step", "k.step", *SCALARS}
    part = nb.optimizer.Momentum(0.1, parameters=params["w"]).state_dict()
    assert set(part) == set(state) - {"b.velocity", "b.step"}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_values(dtype):
    params = small(dtype)
    opt = nb.optimizer.Momentum(0.25, 0.5, params)
    grads = gradients(params)
    opt.step(grads)
    opt.step({"w": grads["w"]})
    state = opt.state_dict()
    assert_array_equal(state["w.velocity"], grads["w"] * params.dtype.type(1.5), strict=True)
    assert_array_equal(state["k.velocity"], grads["k"], strict=True)
    numbers = {"w.step": 2, "k.step": 1, "step_count": 2, "steps_skipped": 0, "learning_rate": 0.25}
    assert {key: state[key] for key in numbers} == numbers
    assert all(type(state[key]) is type(value) for key, value in numbers.items())


def test_a_snapshot_stays_and_is_not_live():  # S09, S09b
    params = small()
    opt = nb.optimizer.Momentum(0.1, parameters=params)
    opt.step(gradients(params))
    state = opt.state_dict()
    bits = frozen_bytes(state)
    opt.step()
    assert frozen_bytes(state) == bits
    live = frozen_bytes(opt.state_dict())
    state["w.velocity"][...] = 7.0
    assert frozen_bytes(opt.state_dict()) == live


def test_what_is_loaded_is_copied():
    params = small()
    opt = nb.optimizer.Momentum(0.1, parameters=params)
    state = opt.state_dict()
    opt.set_state_dict(state)
    state["w.velocity"][...] = 7.0
    assert not opt.state_dict()["w.velocity"].any()


# --- round trips -----------------------------------------------------------------------------------


@pytest.mark.parametrize("load", ["set_state_dict", "load_state_dict"])
@pytest.mark.parametrize("order", [list, reversed, sorted])  # S07: order is irrelevant
@pytest.mark.parametrize("make", [small, normed])
def test_round_trip_into_a_fresh_optimizer(make, order, load):
    params, other = make(), make()
    opt = nb.optimizer.Momentum(0.1, parameters=params, grad_clip=nb.ClipGradByGlobalNorm(0.5))
    run(params, opt, range(3))
    opt.set_lr(0.05)
    state = opt.state_dict()

    for p in other.values():
        p.set_value(params[p.name].numpy())
        for part in (p.weight_g, p.weight_v):
            if part is not None:
                part.set_value(params[part.name].numpy())
    fresh = nb.optimizer.Momentum(0.1, parameters=other, grad_clip=nb.ClipGradByGlobalNorm(0.5))
    assert getattr(fresh, load)({key: state[key] for key in order(list(state))}) is None
    assert frozen_bytes(fresh.state_dict()) == frozen_bytes(state)
    run(params, opt, range(3, 6))
    run(other, fresh, range(3, 6))
    assert other.fingerprint() == params.fingerprint()
    assert frozen_bytes(fresh.state_dict()) == frozen_bytes(opt.state_dict())


def test_numbers_of_every_kind_load():
    opt = nb.optimizer.Momentum(0.1, parameters=small())
    numbers = {"learning_rate": np.float32(0.5), "step_count": np.int64(7), "w.step": np.int32(3)}
    opt.set_state_dict({**opt.state_dict(), **numbers})
    assert (opt.get_lr(), opt.step_count, opt.state_dict()["w.step"]) == (0.5, 7, 3)


def test_not_strict_takes_what_is_there():
    params = small()
    opt = nb.optimizer.Momentum(0.1, parameters=params)
    run(params, opt, range(2))
    before = opt.state_dict()
    velocity = np.ones((2, 3))
    opt.set_state_dict({"w.velocity": velocity, "gone.velocity": 3, "b.step": 9}, strict=False)
    after = opt.state_dict()
    assert_array_equal(after["w.velocity"], velocity)
    assert after["b.step"] == 9
    changed = {"w.velocity", "b.step"}
    assert {k: v for k, v in frozen_bytes(after).items() if k not in changed} == {
        k: v for k, v in frozen_bytes(before).items() if k not in changed
    }
    opt.set_state_dict({}, strict=False)
    assert frozen_bytes(opt.state_dict()) == frozen_bytes(after)


def test_propagate_loads_what_it_saves():  # S05 under the one policy that has such values
    params = small()
    opt = nb.optimizer.Momentum(0.1, parameters=params, nonfinite="propagate")
    opt.step(gradients(params) | {"k": [NAN, INF]})
    state = opt.state_dict()
    opt.set_state_dict(state)
    assert frozen_bytes(opt.state_dict()) == frozen_bytes(state)


# --- refused ---------------------------------------------------------------------------------------

# What is changed in a good state (... takes the key out), and words of the message.
BAD = {
    "S01-missing": ({"b.velocity": ...}, "missing b.velocity"),
    "S01c-missing-rate": ({"learning_rate": ...}, "missing learning_rate"),
    "missing-step": ({"w.step": ...}, "missing w.step"),
    "missing-rule": ({"rule": ...}, "missing rule"),
    "S02-unexpected": ({"x.velocity": np.zeros(2)}, "unexpected x.velocity"),
    "S02b-unexpected-scalar": ({"lr": 0.1}, "unexpected lr"),
    "unexpected-number": ({3: 0.1}, "unexpected 3"),
    "S03-shape": ({"w.velocity": np.zeros(7)}, "w.velocity (7,) (2, 3)"),
    "S03b-0d": ({"b.velocity": np.zeros(())}, "b.velocity () (3,)"),
    "S03b-one": ({"b.velocity": np.zeros(1)}, "b.velocity (1,) (3,)"),
    "shape-transposed": ({"w.velocity": np.zeros((3, 2))}, "w.velocity (3, 2) (2, 3)"),
    "S04-integer": ({"b.velocity": np.zeros(3, int)}, "b.velocity int64 float64"),
    "S04b-string": ({"b.velocity": "abc"}, "b.velocity float64"),
    "S04c-float32": ({"b.velocity": np.zeros(3, np.float32)}, "b.velocity float32 float64"),
    "S13-complex": ({"b.velocity": np.zeros(3, complex)}, "b.velocity complex128 float64"),
    "none": ({"b.velocity": None}, "b.velocity"),
    "ragged": ({"w.velocity": [[1.0], [1.0, 2.0]]}, "w.velocity"),
    "S05-nan": ({"b.velocity": np.array([0.0, NAN, 0.0])}, "b.velocity NaN"),
    "S05-inf": ({"b.velocity": np.array([0.0, 0.0, -INF])}, "b.velocity Inf"),
    "S06-rate-negative": ({"learning_rate": -9.0}, "learning_rate >= 0 -9.0"),
    "S06b-rate-string": ({"learning_rate": "abc"}, "learning_rate number 'abc'"),
    "S06c-rate-nan": ({"learning_rate": NAN}, "learning_rate nan"),
    "rate-none": ({"learning_rate": None}, "learning_rate number None"),
    "step-negative": ({"w.step": -1}, "w.step >= 0 -1"),
    "step-float": ({"w.step": 1.5}, "w.step integer 1.5"),
    "step-true": ({"w.step": True}, "w.step integer True"),
    "step-too-large": ({"b.step": 2**70}, "b.step"),
    "count-too-large": ({"step_count": 2**63}, "step_count"),
    "count-string": ({"step_count": "3"}, "step_count integer '3'"),
    "skipped-negative": ({"steps_skipped": -2}, "steps_skipped >= 0 -2"),
    "in-a-row-none": ({"steps_skipped_in_a_row": None}, "steps_skipped_in_a_row integer None"),
    "rule-number": ({"rule": 3}, "rule 3"),
    "rule-array": ({"rule": np.array(["momentum", "sgd"])}, "rule"),
}


@pytest.mark.parametrize(("change", "words"), expand("", BAD))
def test_state_refused(change, words):
    params = small()
    opt = nb.optimizer.Momentum(0.1, parameters=params)
    run(params, opt, range(2))
    fresh = nb.optimizer.Momentum(0.2, parameters=small())
    state = {key: value for key, value in {**fresh.state_dict(), **change}.items() if value is not ...}
    refuses(lambda: opt.set_state_dict(state), StateDictError, f"Momentum {words}", params, opt)


@pytest.mark.parametrize("strict", [True, False])
def test_all_problems_are_named_at_once(strict):  # also without strict, those of what is there
    params = small()
    opt = nb.optimizer.Momentum(0.1, parameters=params)
    run(params, opt, range(2))
    state = opt.state_dict()
    del state["k.velocity"], state["step_count"]
    wrong = {"w.velocity": np.zeros(2), "b.velocity": np.array([NAN, 0, 0]), "learning_rate": -1.0}
    state |= wrong | {"k.step": 1.5, "x": 1, "rule": "adam"}
    words = "w.velocity (2,) b.velocity NaN learning_rate -1.0 k.step 1.5 'adam' nothing"
    if strict:
        words += " missing k.velocity step_count unexpected x"
    refuses(lambda: opt.set_state_dict(state, strict), StateDictError, words, params, opt)


def test_state_of_another_rule():  # S08
    params = small()
    sgd, momentum = nb.optimizer.SGD(0.1, params), nb.optimizer.Momentum(0.1, parameters=params)
    for opt, other, words in ((sgd, momentum, "SGD sgd momentum"), (momentum, sgd, "Momentum sgd")):
        for strict in (True, False):
            call = partial(opt.set_state_dict, other.state_dict(), strict)
            refuses(call, StateDictError, words, params, opt)


def test_state_of_other_parameters():  # S01b, S07, S07c
    params = small()
    opt = nb.optimizer.Momentum(0.1, parameters=params)
    fewer = nb.optimizer.Momentum(0.1, parameters=params["w"]).state_dict()
    words = "missing b.velocity k.step"
    refuses(lambda: opt.set_state_dict(fewer), StateDictError, words, params, opt)
    others = nb.ParameterBuffer.from_arrays({name + "2": p.numpy() for name, p in params.items()})
    state = nb.optimizer.Momentum(0.1, parameters=others).state_dict()
    words = "missing w.velocity unexpected w2.velocity"
    refuses(lambda: opt.set_state_dict(state), StateDictError, words, params, opt)
    refuses(lambda: opt.set_state_dict({}), StateDictError, "missing w.velocity", params, opt)


@pytest.mark.parametrize("state", [None, 3, "state", [("w.velocity", 1)]], ids=type)
def test_what_is_no_dictionary(state):
    params = small()
    opt = nb.optimizer.Momentum(parameters=params)
    words = f"state_dict dictionary {type(state).__name__}"
    refuses(lambda: opt.set_state_dict(state), TypeError, words, params, opt)
    refuses(lambda: opt.set_state_dict({}, strict=0), TypeError, "strict True False 0", params, opt)


# --- copies and pickles ----------------------------------------------------------------------------


def out_of_band(value):
    buffers = []
    data = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    assert buffers
    return pickle.loads(data, buffers=[bytearray(b.raw()) for b in buffers])


COPIES = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda value: pickle.loads(pickle.dumps(value)),
    "pickle-2": lambda value: pickle.loads(pickle.dumps(value, protocol=2)),
    "pickle-out-of-band": out_of_band,
}


@pytest.mark.parametrize("make", [small, normed])
@pytest.mark.parametrize("duplicate", COPIES.values(), ids=COPIES)
def test_a_copy_goes_on_with_the_same_bits(duplicate, make):
    params = make()
    opt = rich(params)
    params["b"].learning_rate = 0.5
    run(params, opt, range(3))
    opt.minimize(2.5)
    params["w"].clear_grad(set_to_zero=False)
    other, twin = duplicate((params, opt))
    assert twin.parameters == [other["w"], other["b"]]  # tied
    assert (twin.name, twin.last_loss, type(twin)) == ("rich", 2.5, type(opt))
    before, theirs = picture(params, opt), picture(other, twin)
    for key in ("values", "attributes", "present", "gradients", "states"):
        assert theirs[key] == before[key], key
    opt.step()
    run(params, opt, range(3, 6))
    assert picture(other, twin) == theirs  # and apart
    twin.step()
    run(other, twin, range(3, 6))
    assert other.fingerprint() == params.fingerprint()
    assert frozen_bytes(twin.state_dict()) == frozen_bytes(opt.state_dict())
    assert twin.clip_coefficients == opt.clip_coefficients  # the names join, still


def test_a_copied_optimizer_has_a_buffer_of_its_own():
    params = small()
    opt = nb.optimizer.Momentum(0.1, parameters=params)
    run(params, opt, range(2))
    twin = copy.deepcopy(opt)
    before = picture(params, opt)
    twin.param_groups[0]["momentum"] = 0.0
    twin.set_lr(1.0)
    twin.step({"w": np.ones((2, 3))})
    assert picture(params, opt) == before
    assert all(mine is not theirs for mine, theirs in zip(opt.parameters, twin.parameters, strict=True))


def test_copies_keep_one_clip_object_one():
    params = small()
    clip = nb.ClipGradByGlobalNorm(0.5)
    groups = [{"params": params["w"], "grad_clip": clip}, {"params": params["b"]}]
    twin = copy.deepcopy(nb.optimizer.SGD(0.1, groups, grad_clip=clip))
    assert twin.param_groups[0]["grad_clip"] is twin.param_groups[1]["grad_clip"]
    twin.step({"w": np.ones((2, 3)), "b": np.ones(3)})
    assert len(set(twin.clip_coefficients.values())) == 1


def test_a_copy_obeys_edits_and_takes_groups():
    params = small()
    other, twin = copy.deepcopy(
        (params, nb.optimizer.Momentum(0.1, parameters=params["w"], weight_decay=0.5))
    )
    twin.param_groups[0]["learning_rate"] = 0.0
    twin.add_param_group({"params": other["b"]})
    assert twin.param_groups[1]["weight_decay"] == 0.5
    before = other.numpy()
    twin.step(gradients(other))
    assert_array_equal(other["w"].value, before["w"])
    assert (other["b"].value != before["b"]).all()


@pytest.mark.parametrize("nonfinite", ["raise", "skip", "propagate"])
@pytest.mark.parametrize("rule", RULES)
def test_a_copy_keeps_policy_and_counters(rule, nonfinite):
    params = small()
    opt = RULES[rule](0.1, parameters=params, nonfinite=nonfinite)
    bad = {"b": [NAN, 0.0, 0.0]}

    def step(optimizer, number):
        if nonfinite == "raise":
            with pytest.raises(NonFiniteGradientError, match=f"step {number}"):
                optimizer.step(bad)
        else:
            optimizer.step(bad)

    opt.step()
    step(opt, 2)
    other, twin = copy.deepcopy((params, opt))
    assert picture(other, twin)["states"] == picture(params, opt)["states"]
    step(twin, 2)
    moved = nonfinite == "propagate"
    assert (twin.step_count, twin.steps_skipped) == ((3, 0) if moved else (1, 2))
    assert (opt.step_count, opt.steps_skipped) == ((2, 0) if moved else (1, 1))
    assert twin.state_dict()["steps_skipped_in_a_row"] == {"raise": 0, "skip": 2, "propagate": 0}[nonfinite]
    assert np.isnan(other["b"].value[0]) == moved
