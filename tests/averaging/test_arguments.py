"""What averages take and refuse when they are built."""

import numpy as np
import pytest

import nbopt as nb
from nbopt.errors import HyperparameterError, ParameterError
from tests.averaging import buffer
from tests.optimizer import expand

NAN, INF = float("nan"), float("inf")
RATE, LEAST, MOST = "average_window_rate", "min_average_window", "max_average_window"

WINDOW = {
    "rate none": ({RATE: None}, TypeError, f"{RATE} number None"),
    "rate string": ({RATE: "0.1"}, TypeError, f"{RATE} number '0.1'"),
    "rate true": ({RATE: True}, TypeError, f"{RATE} number True"),
    "rate list": ({RATE: [0.1]}, TypeError, f"{RATE} number"),
    "rate negative": ({RATE: -0.1}, HyperparameterError, f"{RATE} >= 0 -0.1"),
    "rate nan": ({RATE: NAN}, HyperparameterError, f"{RATE} finite nan"),
    "rate inf": ({RATE: INF}, HyperparameterError, f"{RATE} finite inf"),
    "least float": ({LEAST: 2.0}, TypeError, f"{LEAST} integer 2.0"),
    "least none": ({LEAST: None}, TypeError, f"{LEAST} integer None"),
    "least true": ({LEAST: True}, TypeError, f"{LEAST} integer True"),
    "least negative": ({LEAST: -1}, HyperparameterError, f"{LEAST} >= 0 -1"),
    "least string": ({LEAST: "2"}, TypeError, f"{LEAST} integer '2'"),
    "most float": ({MOST: 2e4}, TypeError, f"{MOST} integer 20000.0"),
    "most negative": ({MOST: -1, LEAST: -1}, HyperparameterError, f"{LEAST} >= 0 -1"),
    "most too large": ({MOST: 2**63}, HyperparameterError, f"{MOST} 2**62"),
    "wrong order": ({LEAST: 5, MOST: 4}, HyperparameterError, f"{LEAST} {MOST} 5 > 4"),
    "default least": ({MOST: 4}, HyperparameterError, f"{LEAST} {MOST} 10000 > 4"),
    "misspelt": ({"max_window": 4}, TypeError, "max_window"),
}
EXPONENTIAL = {
    "decay none": ({"decay": None}, TypeError, "decay number None"),
    "decay string": ({"decay": "0.9"}, TypeError, "decay number '0.9'"),
    "decay true": ({"decay": True}, TypeError, "decay number True"),
    "decay negative": ({"decay": -0.1}, HyperparameterError, "decay >= 0 -0.1"),
    "decay one": ({"decay": 1.0}, HyperparameterError, "decay < 1 1.0"),
    "decay above": ({"decay": 1.5}, HyperparameterError, "decay < 1 1.5"),
    "decay nan": ({"decay": NAN}, HyperparameterError, "decay nan"),
    "steps string": ({"thres_steps": "3"}, TypeError, "thres_steps number '3'"),
    "steps true": ({"thres_steps": True}, TypeError, "thres_steps number True"),
    "steps negative": ({"thres_steps": -1}, HyperparameterError, "thres_steps >= 0 -1.0"),
    "steps inf": ({"thres_steps": INF}, HyperparameterError, "thres_steps finite inf"),
    "steps two": ({"thres_steps": np.zeros(2)}, TypeError, "thres_steps number"),
    "misspelt": ({"rate": 0.9}, TypeError, "rate"),
}
BOTH = {
    "name empty": ({"name": ""}, ParameterError, "name empty"),
    "name number": ({"name": 3}, TypeError, "name 3"),
    "no parameters": ({"parameters": None}, TypeError, "(..., parameters=params)"),
    "names": ({"parameters": ["w"]}, TypeError, "Parameter str"),
    "a name": ({"parameters": "w"}, TypeError, "parameters str"),
    "an array": ({"parameters": np.ones(3)}, TypeError, "Parameter float64"),
    "a group": ({"parameters": [{"params": []}]}, TypeError, "Parameter dict"),
    "empty": ({"parameters": []}, ParameterError, "got no parameters"),
    "no buffer": ({"parameters": nb.ParameterBuffer()}, ParameterError, "got no parameters"),
    "several buffers": (
        {"parameters": [buffer()["w"], buffer()["b"]]},
        ParameterError,
        "several buffers 'w' 'b'",
    ),
}
CASES = [
    *((nb.ModelAverage, case) for case in (WINDOW | BOTH).items()),
    *((nb.ExponentialMovingAverage, case) for case in (EXPONENTIAL | BOTH).items()),
]
REFUSED = {f"{kind.__name__} {key}": (kind, *case) for kind, (key, case) in CASES}


@pytest.mark.parametrize(("kind", "arguments", "error", "words"), expand("", REFUSED))
def test_refused(kind, arguments, error, words):
    """By a message that names it; the buffer is not laid out."""
    params = buffer()
    needed = {RATE: 0.5} if kind is nb.ModelAverage else {}
    with pytest.raises(error) as caught:
        kind(**{**needed, "parameters": params, **arguments})
    assert [word for word in words.split() if word not in str(caught.value)] == []
    if error is not TypeError or "misspelt" not in words:
        assert not params.is_sealed


def test_the_rate_is_needed():
    with pytest.raises(TypeError, match=RATE):
        nb.ModelAverage(parameters=buffer())


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_decay_that_rounds_to_one(dtype):
    params = buffer(dtype)
    if dtype == "float64":
        assert not nb.ExponentialMovingAverage(1 - 1e-9, params).is_applied
    else:
        with pytest.raises(HyperparameterError, match=r"decay, 0\.999999999 rounded to float32.* < 1.*1\.0"):
            nb.ExponentialMovingAverage(1 - 1e-9, params)


def test_numbers_of_every_kind():
    """The average of one value is that value."""
    params = buffer()
    values = params.to_vector()
    averages = [
        nb.ModelAverage(rate, params, np.int32(2), np.array([4]))
        for rate in (0, np.float32(0.5), np.array([0.5]), np.int64(1))
    ]
    averages += [
        nb.ExponentialMovingAverage(decay, params, np.int64(3))
        for decay in (0, np.float32(0.5), np.array([0.5]))
    ]
    for average in averages:
        average.step() if isinstance(average, nb.ModelAverage) else average.update()
        with average.apply():
            np.testing.assert_allclose(params.to_vector(), values, rtol=1e-6)


def test_arguments_by_position():
    params = buffer()
    average = nb.ModelAverage(0.15, params, 2, 4, "mean")
    assert repr(average) == (
        "ModelAverage 'mean'(4 parameters, average_window_rate=0.15, min_average_window=2, "
        "max_average_window=4)"
    )
    average = nb.ExponentialMovingAverage(0.9, params, 7)
    assert repr(average) == "ExponentialMovingAverage(4 parameters, decay=0.9, thres_steps=7)"


def test_defaults_are_those_of_paddle():
    assert "min_average_window=10000, max_average_window=10000" in repr(nb.ModelAverage(0.5, buffer()))
    assert "decay=0.999, thres_steps=None" in repr(nb.ExponentialMovingAverage(parameters=buffer()))
