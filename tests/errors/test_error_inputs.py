"""Every wrong input of the tables: the error, its words, and that nothing has changed."""

import re

import pytest

from nbopt import errors
from nbopt.attr import DIM_MEANINGS
from tests.errors import (
    Model,
    attempts,
    buffers,
    functions,
    loading,
    optimizers,
    policies,
    rules,
    setters,
    stepping,
)
from tests.optimizer import frozen_bytes, picture

STAGES = {
    "construct": [buffers.TABLE, policies.TABLE, optimizers.TABLE, rules.TABLE],
    "set": [setters.TABLE],
    "load": [loading.TABLE],
    "step": [stepping.TABLE, functions.TABLE, attempts.TABLE],
}
BUILTINS = {
    errors.ParameterError: ValueError,
    errors.HyperparameterError: ValueError,
    errors.StateDictError: ValueError,
    errors.CheckpointError: ValueError,
    errors.NonFiniteGradientError: FloatingPointError,
    errors.DeviceError: RuntimeError,
}

# What no message says: internal names, addresses, and what Python says of a None that got too far.
INTERNAL = re.compile(r"(?<![\w.'/])_+[a-z]\w*|Stepping|Collection| at 0x|'NoneType' object")
SENTENCE = re.compile(r"[.?!](?=\s+[A-Z])")


def expect(call, error, pattern, model):
    """Make the call; its message has the parts of the pattern, which ``...`` stands between, in order."""
    with pytest.raises(error) as found:
        call(model)
    assert found.type is error
    assert issubclass(error, BUILTINS.get(error, Exception))
    message = str(found.value)
    parts = (re.escape(part) for part in pattern.split(" ... "))
    assert re.search(".*".join(parts), message, re.DOTALL), message
    own = message.replace(DIM_MEANINGS, "")
    assert len(own) <= 400, own
    assert len(SENTENCE.findall(own)) <= 1, own
    assert not INTERNAL.search(own), own


def look(model):
    """Everything that a refused call leaves as it was."""
    seen = picture(model.params, model.opt, model.scheduled)
    others = [frozen_bytes(model.schedule.state_dict())]
    if not model.average.is_applied:
        others.append(frozen_bytes(model.average.state_dict()))
    return {**seen, "others": others}


def without_gradients(seen):
    """What is left alone by a call that has copied gradients in, and counts that it was refused."""
    states = [
        {key: value for key, value in state.items() if key != "steps_skipped"} for state in seen["states"]
    ]
    return {**seen, "gradients": None, "states": states}


def params(cases, stage):
    return [pytest.param(*case, id=f"{stage}-{name}") for name, case in cases.items()]


@pytest.mark.parametrize(
    ("call", "error", "pattern"),
    [case for stage, tables in STAGES.items() for table in tables for case in params(table, stage)],
)
def test_refused(call, error, pattern, tmp_path, counted):
    model = Model(tmp_path)
    before = look(model)
    expect(call, error, pattern, model)
    assert look(model) == before
    model.good_step()
    assert look(model) != before
    counted("error inputs")


@pytest.mark.parametrize(("call", "error", "pattern"), params(stepping.APPLIED, "step"))
def test_refused_while_averages_are_in_place(call, error, pattern, tmp_path, counted):
    model = Model(tmp_path)
    before = look(model)
    with model.average.apply():
        applied = look(model)
        expect(call, error, pattern, model)
        assert look(model) == applied != before
    assert look(model) == before
    counted("error inputs")


@pytest.mark.parametrize(
    ("call", "error", "pattern"), params(stepping.NONFINITE | attempts.NONFINITE, "step")
)
def test_refused_with_the_gradients_in_place(call, error, pattern, tmp_path, counted):
    model = Model(tmp_path)
    before = without_gradients(look(model))
    expect(call, error, pattern, model)
    assert without_gradients(look(model)) == before
    model.good_step()
    assert without_gradients(look(model)) != before
    counted("error inputs")
