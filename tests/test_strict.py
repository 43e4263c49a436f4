"""Attributes that are not there are refused, with what to write instead."""

import pytest

import nbopt as nb


@pytest.fixture
def model():
    params = nb.ParameterBuffer.from_arrays({"w": [1.0], "b": [0.0]})
    return params, nb.optimizer.Momentum(0.1, parameters=params)


PARAMETER = {
    "grads": "write grad",
    "data": "write value",
    "lr": "write learning_rate",
    "requires_grad": "write trainable",
    "need_clips": "need_clip",
    "anything": "trainable",
}
OPTIMIZER = {
    "lr": "opt.set_lr(value)",
    "learning_rate": "opt.set_lr(value)",
    "momentum": "opt.param_groups[0]['momentum'] = value",
    "use_nesterov": "opt.param_groups[0]['use_nesterov'] = value",
    "weight_decay": "opt.param_groups[0]['weight_decay'] = value",
    "names": "name",
}


@pytest.mark.parametrize("name", PARAMETER)
def test_parameter(model, name):
    params, _ = model
    with pytest.raises(AttributeError, match=f"Parameter has no attribute '{name}' to set") as error:
        setattr(params["w"], name, 1.0)
    assert PARAMETER[name] in str(error.value)


@pytest.mark.parametrize("name", OPTIMIZER)
def test_optimizer(model, name):
    _, opt = model
    with pytest.raises(AttributeError, match=f"Momentum has no attribute '{name}' to set") as error:
        setattr(opt, name, 1.0)
    assert OPTIMIZER[name] in str(error.value)


def test_buffer(model):
    params, _ = model
    with pytest.raises(AttributeError, match=r"write params\['w'\]\.value = array"):
        params.w = [2.0]


def test_what_is_there_can_be_set(model):
    params, opt = model
    opt.name = "mine"
    params["w"].need_clip = False
    assert (opt.name, params["w"].need_clip) == ("mine", False)


def test_a_class_of_a_user_has_attributes_of_its_own(model):
    params, _ = model

    class Mine(nb.optimizer.SGD):
        pass

    mine = Mine(0.1, params)
    mine.history = []
    assert mine.history == []
