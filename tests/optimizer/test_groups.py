"""Parameter groups: what they take, which value wins, edits between steps, and clips over groups."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

import nbopt as nb
from nbopt.errors import HyperparameterError, ParameterError
from tests.optimizer import RULES, Twin, expand, gradients, refuses, small
from tests.oracle import Clip, Decay

NAN, INF = float("nan"), float("inf")

# --- refused ---------------------------------------------------------------------------------------

# (rule, what a group says, error, words): at construction, in add_param_group, and as an edit.
VALUES = {
    "O11-momentun": ("Momentum", {"momentun": 0.9}, TypeError, "unknown 'momentun' mean 'momentum'?"),
    "O11-lr": ("Momentum", {"lr": 0.1}, TypeError, "unknown 'lr' learning_rate"),
    "decay-misspelt": ("SGD", {"weight_deacy": 0.1}, TypeError, "unknown mean 'weight_decay'?"),
    "momentum-of-sgd": ("SGD", {"momentum": 0.5}, TypeError, "unknown 'momentum'"),
    "key-int": ("SGD", {3: 0.5}, TypeError, "unknown 3"),
    "O11b-rate": ("SGD", {"learning_rate": -5}, HyperparameterError, "learning_rate >= 0 -5.0"),
    "rate-nan": ("SGD", {"learning_rate": NAN}, HyperparameterError, "learning_rate finite nan"),
    "rate-inf": ("SGD", {"learning_rate": INF}, HyperparameterError, "learning_rate finite inf"),
    "rate-string": ("SGD", {"learning_rate": "1"}, TypeError, "learning_rate number '1'"),
    "rate-none": ("SGD", {"learning_rate": None}, TypeError, "learning_rate number None"),
    "rate-true": ("SGD", {"learning_rate": True}, TypeError, "learning_rate number True"),
    "O11b-momentum": ("Momentum", {"momentum": NAN}, HyperparameterError, "momentum >= 0 < 1 nan"),
    "momentum-1": ("Momentum", {"momentum": 1.0}, HyperparameterError, "momentum >= 0 < 1 1.0"),
    "momentum-none": ("Momentum", {"momentum": None}, TypeError, "momentum number None"),
    "nesterov-int": ("Momentum", {"use_nesterov": 0}, TypeError, "use_nesterov True False 0"),
    "rescale-nan": ("Momentum", {"rescale_grad": NAN}, HyperparameterError, "rescale_grad nan"),
    "rescale-none": ("Momentum", {"rescale_grad": None}, TypeError, "rescale_grad None"),
    "decay-negative": ("SGD", {"weight_decay": -0.1}, HyperparameterError, "weight_decay >= 0 -0.1"),
    "decay-true": ("SGD", {"weight_decay": True}, TypeError, "weight_decay L1Decay L2Decay True"),
    "decay-string": ("SGD", {"weight_decay": "L2"}, TypeError, "weight_decay L1Decay L2Decay 'L2'"),
    "clip-number": ("SGD", {"grad_clip": 1.0}, TypeError, "grad_clip ClipGradByNorm 1.0"),
    "clip-name": (
        "SGD",
        {"grad_clip": nb.ClipGradByGlobalNorm(9.0, group_name="all")},
        HyperparameterError,
        "group_name 'all' 1.0 9.0",
    ),
}


@pytest.mark.parametrize("how", ["construct", "add", "edit", "update"])
@pytest.mark.parametrize(("rule", "values", "error", "words"), expand("", VALUES))
def test_value_refused(how, rule, values, error, words):
    """One bad value among good ones, in group 1; the message says so."""
    if "'all'" not in words:
        words += " group 2" if how == "add" else " group 1"
    params = small()
    named = nb.ClipGradByGlobalNorm(1.0, group_name="all")
    first = {"params": params["w"], "grad_clip": named}
    if how == "construct":
        groups = [first, {"params": params["b"], "weight_decay": 0.1, **values}]
        refuses(lambda: RULES[rule](parameters=groups), error, words, params)
        return
    opt = RULES[rule](parameters=[first, {"params": params["b"]}])
    opt.step(gradients(params))
    if how == "add":
        new = {"params": params["k"], "weight_decay": 0.1, **values}
        refuses(lambda: opt.add_param_group(new), error, words, params, opt)
    elif how == "edit":
        for key, value in values.items():
            call = opt.param_groups[1].__setitem__
            refuses(lambda c=call, k=key, v=value: c(k, v), error, words, params, opt)
    else:
        new = {"weight_decay": 0.1, "learning_rate": 3.0, **values}
        refuses(lambda: opt.param_groups[1].update(new), error, words, params, opt)


EDITS = {
    "params": (lambda g, p: g.update(params=[p["b"]]), "parameters add_param_group"),
    "append": (lambda g, p: g["params"].append(p["k"]), ""),
    "clear-params": (lambda g, p: g["params"].clear(), ""),
    "delete": (lambda g, p: g.__delitem__("momentum"), "removed None"),
    "pop": (lambda g, p: g.pop("weight_decay"), "removed None"),
    "popitem": (lambda g, p: g.popitem(), "removed None"),
    "clear": (lambda g, p: g.clear(), "removed None"),
    "setdefault": (lambda g, p: g.setdefault("momentun", 0.1), "'momentun' 'momentum'"),
    "or": (lambda g, p: g.__ior__({"lr": 0.1}), "'lr' learning_rate"),
}


@pytest.mark.parametrize(("edit", "words"), expand("", EDITS))
def test_keys_and_parameters_of_a_group_stay(edit, words):
    params = small()
    opt = nb.optimizer.Momentum(parameters=[{"params": [params["w"], params["b"]]}])
    group = opt.param_groups[0]
    refuses(lambda: edit(group, params), (TypeError, AttributeError), words, params, opt)


ADDED = {
    "number": (lambda p: 3, TypeError, ""),
    "parameter": (lambda p: p["k"], TypeError, ""),
    "list": (lambda p: [p["k"]], TypeError, ""),
    "buffer": (lambda p: p, TypeError, "ParameterBuffer"),
    "without-params": (lambda p: {"learning_rate": 1.0}, TypeError, "'params'"),
    "empty": (lambda p: {"params": []}, ParameterError, "no parameters"),
    "held": (lambda p: {"params": [p["k"], p["b"]]}, ParameterError, "'b' group 0"),
    "other-buffer": (lambda p: {"params": small()["k"]}, ParameterError, "another buffer"),
}


@pytest.mark.parametrize(("make", "error", "words"), expand("", ADDED))
def test_group_that_is_not_added(make, error, words):
    params = small()
    opt = nb.optimizer.Momentum(parameters=[params["w"], params["b"]])
    refuses(lambda: opt.add_param_group(make(params)), error, words, params, opt)


# --- which value wins (D2) -------------------------------------------------------------------------

# (optimizer, group, attribute) -> decay that acts on w
L1, L2 = Decay(l1=0.3), Decay(l2=0.2)
WINS = {
    "optimizer": ({"weight_decay": L2}, {}, {}),
    "group": ({"weight_decay": L2}, {"weight_decay": L1}, {}),
    "group-none": ({"weight_decay": L2}, {"weight_decay": None}, {}),
    "group-zero": ({"weight_decay": L2}, {"weight_decay": Decay()}, {}),
    "parameter": ({"weight_decay": L2}, {"weight_decay": L2}, {"regularizer": L1}),
    "parameter-over-none": ({"weight_decay": L2}, {"weight_decay": None}, {"regularizer": L1}),
    "parameter-zero": ({"weight_decay": L2}, {"weight_decay": L1}, {"regularizer": Decay()}),
    "rates-multiply": ({}, {"learning_rate": 0.5}, {"learning_rate": 3.0}),
    "rate-zero": ({}, {"learning_rate": 0.0}, {"learning_rate": 3.0}),
    "clip-inherited": ({"grad_clip": Clip("norm", 0.5)}, {}, {}),
    "clip-of-group": ({"grad_clip": Clip("norm", 0.5)}, {"grad_clip": Clip("value", 0.1)}, {}),
    "clip-none": ({"grad_clip": Clip("norm", 0.5)}, {"grad_clip": None}, {}),
    "need-no-clip": ({"grad_clip": Clip("norm", 0.5)}, {}, {"need_clip": False}),
    "O11c-momentum": ({"momentum": 0.9}, {"momentum": 0.0}, {}),
    "nesterov": ({"use_nesterov": True}, {"use_nesterov": False}, {}),
    "rescale": ({"rescale_grad": 2.0}, {"rescale_grad": -0.5}, {}),
    "rescale-inherited": ({"rescale_grad": 2.0}, {}, {}),
}


@pytest.mark.parametrize(("options", "group", "attr"), expand("", WINS))
def test_which_value_wins(options, group, attr):
    values = small().numpy()
    groups = [{"params": ["w"], **group}, {"params": ["b", "k"]}]
    twin = Twin("Momentum", values, attrs={"w": attr}, groups=groups, **options)
    for seed in range(3):
        twin.step(gradients(twin.params, seed))


def test_dictionaries_of_the_caller_are_left_alone():  # D12
    params = small()
    members, clip = [params["w"], params["w"]], nb.ClipGradByNorm(0.5)
    group = {"params": members, "learning_rate": np.float32(2), "weight_decay": 1, "grad_clip": clip}
    groups = [group, {"params": params["b"]}]
    opt = nb.optimizer.Momentum(parameters=groups)
    added = {"params": (params["k"],), "momentum": 0}
    opt.add_param_group(added)
    opt.step(gradients(params))
    opt.param_groups[0]["learning_rate"] = 3.0
    assert groups == [group, {"params": params["b"]}]
    assert group == {"params": members, "learning_rate": 2, "weight_decay": 1, "grad_clip": clip}
    assert type(group["learning_rate"]) is np.float32
    assert members == [params["w"], params["w"]]
    assert added == {"params": (params["k"],), "momentum": 0}
    group["learning_rate"] = 7.0
    members.clear()
    assert opt.param_groups[0]["learning_rate"] == 3.0
    assert opt.parameters == [params["w"], params["b"], params["k"]]


def test_the_list_of_groups_is_a_copy():
    opt = nb.optimizer.SGD(parameters=small())
    opt.param_groups.clear()
    assert len(opt.param_groups) == 1


def test_every_legal_key_is_there():
    params = small()
    opt = nb.optimizer.Momentum(parameters=[{"params": params, "momentum": 0.5}], weight_decay=0.25)
    expected = {"learning_rate": 1.0, "weight_decay": 0.25, "grad_clip": None, "rescale_grad": 1.0}
    expected |= {"momentum": 0.5, "use_nesterov": False, "params": list(params.values())}
    group = opt.param_groups[0]
    assert {**group, "params": list(group["params"])} == expected
    assert group.copy() == dict(group)
    assert type(group.copy()) is dict


# --- edits between steps ---------------------------------------------------------------------------

EDITED = {
    "learning_rate": [0.5, 0.0, np.float32(2.0)],
    "momentum": [0.5, 0, 0.99],
    "use_nesterov": [True, False, np.True_],
    "rescale_grad": [0.5, -2.0, 0],
    "weight_decay": [L1, None, Decay(l2=0.7)],
    "grad_clip": [Clip("value", 0.3), None, Clip("global", 0.4)],
}


@pytest.mark.parametrize("key", EDITED)
def test_edited_value_is_obeyed_by_the_next_step(key):
    groups = [{"params": ["w", "b"]}, {"params": ["k"]}]
    twin = Twin("Momentum", small().numpy(), groups=groups, grad_clip=Clip("global", 1.0), momentum=0.9)
    twin.step(gradients(twin.params))
    for seed, value in enumerate(EDITED[key]):
        twin.edit(0, key, value)
        twin.step(gradients(twin.params, seed))
        twin.step(gradients(twin.params, seed + 10))


def test_edits_by_update_and_in_place_or():
    params = small()
    opt = nb.optimizer.Momentum(parameters=params)
    group = opt.param_groups[0]
    group.update({"momentum": 0.25}, weight_decay=0.5)
    group |= {"use_nesterov": True}
    assert opt.param_groups[0]["momentum"] == 0.25
    assert (group["weight_decay"], group["use_nesterov"]) == (0.5, True)
    assert group.setdefault("momentum", 0.75) == 0.25


# --- clips over groups (D3) ------------------------------------------------------------------------

ONE, TWO, NAMED = Clip("global", 0.8), Clip("global", 0.8), Clip("global", 0.8, group_name="all")
ALIKE, OTHER = Clip("global", 0.8, group_name="all"), Clip("global", 0.8, group_name="rest")
# Clips of the optimizer, of group 0 and of group 1; "-" inherits. How many norms are taken.
CLIPS = {
    "inherited": (ONE, "-", "-", 1),
    "same-object-in-both": (None, ONE, ONE, 1),
    "same-object-once-inherited": (ONE, ONE, "-", 1),
    "equal-objects": (None, ONE, TWO, 2),
    "equal-object-in-one": (ONE, TWO, "-", 2),
    "equal-names": (None, NAMED, ALIKE, 1),
    "name-inherited": (NAMED, ALIKE, "-", 1),
    "other-names": (None, NAMED, OTHER, 2),
    "one-without": (ONE, None, "-", 1),
}


@pytest.mark.parametrize(("own", "first", "second", "norms"), expand("", CLIPS))
def test_one_norm_per_clip_object_or_name(own, first, second, norms):
    groups = [{"params": ["w"]}, {"params": ["b", "k"]}]
    for group, clip in zip(groups, (first, second), strict=True):
        if clip != "-":
            group["grad_clip"] = clip
    twin = Twin("SGD", small().numpy(), groups=groups, grad_clip=own)
    for seed in range(2):
        twin.step(gradients(twin.params, seed))
    found = {c for c in twin.opt.clip_coefficients.values() if c != 1.0}
    assert len(found) == norms


def test_the_default_name_joins_nothing():
    params = small()
    clips = [nb.ClipGradByGlobalNorm(0.5, "default_group"), nb.ClipGradByGlobalNorm(0.5, "default_group")]
    groups = [{"params": params[n], "grad_clip": c} for n, c in zip("wb", clips, strict=True)]
    opt = nb.optimizer.SGD(parameters=groups)
    opt.step(gradients(params))
    for name, grad in gradients(params).items():
        if name != "k":
            assert_allclose(opt.clip_coefficients[name], 0.5 / np.linalg.norm(grad), rtol=1e-12)


def test_edited_clips_join_and_part():
    groups = [{"params": ["w"]}, {"params": ["b"]}, {"params": ["k"]}]
    twin = Twin("Momentum", small().numpy(), groups=groups, grad_clip=ONE)
    edits = [(0, TWO), (1, TWO), (2, None), (0, NAMED), (1, ALIKE), (2, OTHER), (1, Clip("norm", 0.1))]
    for seed, (index, clip) in enumerate(edits):
        twin.edit(index, "grad_clip", clip)
        twin.step(gradients(twin.params, seed))


# --- groups added later ----------------------------------------------------------------------------


def test_added_group_moves_nothing_and_joins_the_next_step():
    clip = Clip("global", 0.8)
    values = small().numpy()
    twin = Twin("Momentum", values, groups=[{"params": ["w"], "momentum": 0.5}], grad_clip=clip)
    twin.step(gradients(twin.params, 0))
    before, state = twin.params.fingerprint(), twin.opt.state_dict()

    group = {"params": ["b", "k"], "learning_rate": 2.0}
    twin.groups.append(group)
    twin.opt.add_param_group(twin.translated_group(group))
    assert twin.params.fingerprint() == before
    assert len(twin.opt.param_groups) == 2
    assert twin.opt.param_groups[1]["momentum"] == 0.9  # the optimizer's, not the other group's
    after = twin.opt.state_dict()
    assert_array_equal(after["w.velocity"], state["w.velocity"])
    assert set(after) - set(state) == {"b.velocity", "b.step", "k.velocity", "k.step"}
    assert (after["w.step"], after["b.step"]) == (1, 0)
    assert not after["b.velocity"].any()
    for seed in range(1, 4):
        twin.step(gradients(twin.params, seed))
    assert len(set(twin.opt.clip_coefficients.values())) == 1  # one norm, over both groups


def test_added_group_can_be_edited():
    params = small()
    opt = nb.optimizer.SGD(1.0, parameters=[params["w"]])
    opt.add_param_group({"params": [params["b"]]})
    opt.param_groups[1]["learning_rate"] = 0.0
    before = params.numpy()
    opt.step(gradients(params))
    assert_array_equal(params["b"].value, before["b"])
    assert (params["w"].value != before["w"]).all()


# --- everything at once ----------------------------------------------------------------------------

POOL = [*(Clip(kind, limit) for kind in ("value", "norm", "global") for limit in (0.1, 1.0)), NAMED, ALIKE]
decays = st.sampled_from([None, Decay(), Decay(l1=0.1), Decay(l2=0.2)])
clips = st.sampled_from([None, *POOL])
rates = st.sampled_from([0.0, 0.5, 1.0, 2.0])
SHARED = {"learning_rate": rates, "weight_decay": decays, "grad_clip": clips}
MOMENTUM = {
    "momentum": st.sampled_from([0.0, 0.5, 0.9]),
    "use_nesterov": st.booleans(),
    "rescale_grad": st.sampled_from([1.0, -0.5, 3.0, 0.0]),
}
ATTRIBUTES = {
    "learning_rate": rates,
    "regularizer": decays,
    "need_clip": st.booleans(),
    "trainable": st.sampled_from([True, True, True, False]),
}
SHAPES = [(), (3,), (2, 3), (3, 2, 2)]


@st.composite
def models(draw):
    """A `Twin` of some parameters, some of them weight-normed, in some groups, all with policies."""
    rule = draw(st.sampled_from(sorted(RULES)))
    keys = SHARED | (MOMENTUM if rule == "Momentum" else {})
    shapes = draw(st.lists(st.sampled_from(SHAPES), min_size=1, max_size=5))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    values = {f"p{i}": rng.normal(size=shape) for i, shape in enumerate(shapes)}
    dims = {}
    if rule == "Momentum" and draw(st.booleans()):
        kept = {name: [None, *range(value.ndim)] for name, value in values.items() if value.ndim > 1}
        dims = {name: draw(st.sampled_from(axes)) for name, axes in kept.items() if draw(st.booleans())}
    attrs = {name: draw(st.fixed_dictionaries({}, optional=ATTRIBUTES)) for name in values}
    groups = None
    if draw(st.booleans()):
        member = {name: draw(st.integers(0, 2)) for name in values}
        policies = [draw(st.fixed_dictionaries({}, optional=keys)) for _ in range(3)]
        groups = [{"params": [n for n in member if member[n] == i], **policies[i]} for i in range(3)]
        groups = [group for group in groups if group["params"]]
    options = draw(st.fixed_dictionaries({}, optional=keys))
    options["learning_rate"] = draw(st.sampled_from([0.01, 0.3]))
    return Twin(rule, values, attrs=attrs, dims=dims, groups=groups, **options), rng


@settings(max_examples=150, deadline=None)
@given(models(), st.data())
def test_any_model_follows_the_oracle(model, data):
    twin, rng = model
    names = st.sets(st.sampled_from(sorted(twin.params)))
    for _ in range(5):
        absent = data.draw(names, label="absent")
        twin.step({n: None if n in absent else rng.normal(size=p.shape) for n, p in twin.params.items()})
