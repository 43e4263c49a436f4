"""`explain`: what it says is what the next step does."""

import pytest

import nbopt as nb
from nbopt.errors import ParameterError
from tests.optimizer import refuses, small

L1, L2 = nb.regularizer.L1Decay, nb.regularizer.L2Decay


def model():
    """w has weight norm, b a decay of its own, f is frozen, x is plain."""
    attrs = {
        "w": nb.WeightNormParamAttr(dim=0, learning_rate=0.5),
        "b": nb.ParamAttr(regularizer=L1(0.1), need_clip=False),
        "f": nb.ParamAttr(trainable=False),
    }
    values = {"w": [[3.0, 4.0]], "b": [1.0], "f": [1.0], "x": [1.0]}
    return nb.ParameterBuffer.from_arrays(values, attrs=attrs)


def text(opt, name=None):
    return {found.name: str(found) for found in opt.explain(name)}


def test_it_prints_what_it_returns(capsys):
    opt = nb.optimizer.SGD(0.1, parameters=model())
    found = opt.explain()
    assert [one.name for one in found] == ["w_g", "w_v", "b", "f", "x"]
    assert capsys.readouterr().out == "\n".join(map(str, found)) + "\n"
    assert repr(found[2]) == "Explanation('b', rate=0.1, moves)"


def test_the_rate_is_the_product_that_moves_the_parameter():
    params = model()
    groups = [{"params": [params["w"], params["b"]], "learning_rate": 0.5}, {"params": [params["x"]]}]
    opt = nb.optimizer.SGD(0.2, parameters=groups)
    params["x"].learning_rate = 3.0
    opt.set_lr(0.25)
    (x,) = opt.explain("x")
    assert x.factors == {"base": 0.25, "group": 1.0, "parameter": 3.0}
    assert "0.75 = 0.25 (base) x 1 (group) x 3 (parameter)" in str(x)
    opt.step({"x": [1.0]})
    assert params["x"].value == 1.0 - x.rate
    assert [one.rate for one in opt.explain(params["w"])] == [0.0625, 0.0625]


def test_which_regularizer_won():
    params = model()
    groups = [
        {"params": params["b"]},
        {"params": params["f"], "weight_decay": 0.5},
        {"params": params["w"], "weight_decay": None},
        {"params": params["x"]},
    ]
    opt = nb.optimizer.SGD(0.1, parameters=groups, weight_decay=L1(0.25))
    said = {found.name: found.regularizer for found in opt.explain()}
    assert said == {
        "b": "L1Decay(coeff=0.1): the parameter's own, which stands in place of any other",
        "f": "L2Decay(coeff=0.5): the group 1's, as the parameter has none",
        "w_g": "none",
        "w_v": "none",
        "x": "L1Decay(coeff=0.25): the optimizer's, as the parameter has none",
    }


def test_the_clip_of_the_last_step():
    params = model()
    opt = nb.optimizer.SGD(0.1, parameters=params, grad_clip=nb.ClipGradByNorm(0.5))
    assert "the last step did not take it in" in text(opt, "x")["x"]
    opt.step({"x": [2.0], "b": [2.0]})
    said = text(opt)
    assert "clip         ClipGradByNorm(clip_norm=0.5); the last step multiplied by 0.25" in said["x"]
    assert "need_clip is False" in said["b"]
    assert "did not take it in" in said["f"]
    opt.param_groups[0]["grad_clip"] = nb.ClipGradByValue(1.0)
    assert "clip         ClipGradByValue(max=1.0, min=-1.0)" in text(opt, "x")["x"]
    opt.param_groups[0]["grad_clip"] = None
    assert "clip         none" in text(opt, "b")["b"]


def test_weight_norm_frozen_and_absent():
    params = model()
    opt = nb.optimizer.SGD(0.1, parameters=params)
    opt.step({"b": [1.0]})
    states = {found.name: (found.state, found.dim) for found in opt.explain()}
    assert states == {
        "w_g": ("absent", "part of 'w', along dim=0"),
        "w_v": ("absent", "part of 'w', along dim=0"),
        "b": ("moves", ""),
        "f": ("frozen", ""),
        "x": ("absent", ""),
    }
    assert "trainable is False" in text(opt, "f")["f"]
    assert list(text(opt, "w_g")) == ["w_g"]
    params["w_v"].trainable = False
    assert [found.state for found in opt.explain("w")] == ["absent", "frozen"]


def test_a_decoupled_decay():
    params = model()
    opt = nb.optimizer.AdamW(
        0.1,
        parameters=[{"params": [params["b"], params["x"]], "weight_decay": 0.2}],
        lr_ratio=lambda p: 0.5,
        apply_decay_param_fun=lambda name: name != "b",
    )
    said = text(opt)
    assert "0.05 = 0.1 (base) x 1 (group) x 0.5 (lr_ratio) x 1 (parameter)" in said["x"]
    assert "decay        0.2, decoupled: the rule adamw applies it" in said["x"]
    assert "regularizer  none" in said["x"]
    assert "decay        none: apply_decay_param_fun says so, of 0.2" in said["b"]
    assert "regularizer  L1Decay(coeff=0.1): the parameter's own\n" in said["b"]


def test_refused():
    params = small()
    opt = nb.optimizer.SGD(0.1, parameters=[params["w"]])
    refuses(
        lambda: opt.explain("b"), ParameterError, "'b' none of this optimizer's parameters: w", params, opt
    )
    refuses(lambda: opt.explain(3), TypeError, "explain name Parameter int 3", params, opt)


def test_it_answers_after_a_refused_step():
    opt = nb.optimizer.SGD(0.1, parameters=model())
    with pytest.raises(nb.errors.NonFiniteGradientError):
        opt.step({"x": [float("nan")]})
    assert opt.explain("x")[0].state == "moves"
