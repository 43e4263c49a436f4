"""What does not fit is named, all of it at once, and nothing is changed."""

import os
import signal
import threading

import numpy as np
import pytest

import nbopt as nb
from nbopt.checkpoint import files, objects
from nbopt.checkpoint.files import Target
from nbopt.errors import CheckpointError, ConcurrencyError, NonFiniteGradientError
from nbopt.kernels import tables as t
from tests.checkpoint import Counter, bits, gradients, leftovers, model, momentum
from tests.optimizer import picture


def saved(path, **changes):
    """A file of a model after one step, and these."""
    params = model()
    opt = momentum(params)
    opt.step(gradients(params, 0))
    nb.save(path, params, opt, Counter(5), **changes)
    return params, opt


def attempt(path, params, opt, counter):
    """Restore; return the message of the refusal, after looking that nothing has changed."""
    before = picture(params, opt), counter.state_dict()["count"]
    with pytest.raises(CheckpointError) as caught:
        nb.restore(path, params, opt, counter)
    assert (picture(params, opt), counter.count) == before
    return str(caught.value)


def test_all_problems_of_all_objects_are_named(tmp_path):
    saved(tmp_path / "a")
    params = nb.ParameterBuffer.from_arrays(
        {"fc.weight": np.ones((5, 7)), "fc.bias": np.zeros(8), "out.weight": np.ones((7, 3)), "new": [1.0]}
    )
    message = attempt(tmp_path / "a", params, nb.optimizer.SGD(0.5, params), Counter())
    for words in (
        "nothing was changed",
        "ParameterBuffer: missing: fc.weight, new",
        "ParameterBuffer: unexpected: fc.weight_g, fc.weight_v, scale, none",
        "ParameterBuffer: fc.bias: got float32 of shape (7,), need float64 of shape (8,)",
        "ParameterBuffer: out.weight: got float32 of shape (7, 3), need float64 of shape (7, 3)",
        "ParameterBuffer: fc.weight was saved with weight norm",
        "Optimizer: missing: fc.weight.step, new.step",
        "Optimizer: unexpected: fc.bias.velocity",
        "it belongs to the rule 'momentum', not 'sgd'",
    ):
        assert words in message


def test_weight_norm_where_there_was_none(tmp_path):
    nb.save(tmp_path / "a", nb.ParameterBuffer.from_arrays({"w": np.ones((2, 2))}))
    attrs = {"w": nb.WeightNormParamAttr(dim=0)}
    params = nb.ParameterBuffer.from_arrays({"w": np.ones((2, 2))}, attrs=attrs)
    with pytest.raises(CheckpointError, match="w was saved without weight norm"):
        nb.restore(tmp_path / "a", params)


def test_another_axis_of_weight_norm(tmp_path):
    nb.save(tmp_path / "a", model(dim=1))
    with pytest.raises(CheckpointError, match=r"fc.weight_g: got .* \(1, 7\), need .* \(5, 1\)"):
        nb.restore(tmp_path / "a", model(dim=0))


def test_an_optimizer_of_fewer_parameters(tmp_path):
    params, _ = saved(tmp_path / "a")
    opt = momentum(params.select("fc.bias"))
    message = attempt(tmp_path / "a", params, opt, Counter())
    assert "Optimizer: unexpected: out.weight.velocity" in message
    assert "missing" not in message


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(("at", "streamed"), [(0, False), (-1, False), (0, True)])
def test_velocities_that_are_not_finite(at, streamed, bad, tmp_path, monkeypatch):
    if streamed:
        monkeypatch.setattr(files, "SMALL", -1)
    params = nb.ParameterBuffer.from_arrays({"a": np.ones(300_000), "b": [1.0]})
    opt = momentum(params, nonfinite="propagate")
    grad = np.ones(300_000)
    grad[at] = bad
    opt.step({"a": grad, "b": [bad]})
    nb.save(tmp_path / "a", params, opt, Counter())
    other = nb.ParameterBuffer.from_arrays({"a": np.ones(300_000), "b": [1.0]})
    message = attempt(tmp_path / "a", other, momentum(other), Counter())
    assert "Optimizer: a.velocity: holds NaN or Inf\n  Optimizer: b.velocity: holds NaN or Inf" in message
    again = momentum(other, nonfinite="propagate")
    nb.restore(tmp_path / "a", other, again)
    assert bits(again.state_dict()) == bits(opt.state_dict())
    assert other.fingerprint() == params.fingerprint()


class Fussy(Counter):
    """Refuses the next state if it is told to, and by then has half changed."""

    refuses = False

    def set_state_dict(self, state):
        self.count = state["count"]
        refuses, self.refuses = self.refuses, False
        if refuses:
            raise ValueError("not today")
        super().set_state_dict(state)


def test_all_or_nothing_where_an_object_refuses(tmp_path):
    params, other = model(seed=0), model(seed=1)
    nb.save(tmp_path / "a", params, Fussy(1), momentum(params), second=Fussy(2), third=Fussy(3))
    opt, first, second, third = momentum(other), Fussy(10), Fussy(20), Fussy(30)
    before = picture(other, opt)
    second.refuses = True
    with pytest.raises(CheckpointError, match="nothing was changed:\n  Fussy 'second': not today"):
        nb.restore(tmp_path / "a", other, first, opt, second=second, third=third)
    assert picture(other, opt) == before
    assert (first.count, second.count, third.count) == (10, 20, 30)


def test_an_object_that_hands_out_its_own_memory_is_taken_back_too(tmp_path):
    class Live(Counter):
        def state_dict(self):
            return self.memory

        def set_state_dict(self, state):
            self.memory["history"][...] = state["history"]
            self.memory["list"][:] = state["list"]

    def live(value):
        thing = Live()
        thing.memory = {"history": np.full(3, value), "list": [value]}
        return thing

    nb.save(tmp_path / "a", live(1.0), second=Fussy(2))
    first, second = live(5.0), Fussy(6)
    second.refuses = True
    with pytest.raises(CheckpointError, match="not today"):
        nb.restore(tmp_path / "a", first, second=second)
    assert first.memory["list"] == [5.0]
    assert first.memory["history"].tolist() == [5.0, 5.0, 5.0]


def test_what_is_not_in_the_file(tmp_path):
    params, _ = saved(tmp_path / "a", note=Counter(7))
    for objects_, named, words in (
        ((params, model()), {}, "nothing for ParameterBuffer"),
        ((Fussy(),), {}, "nothing for Fussy"),
        ((), {"nota": Counter()}, "nothing for Counter 'nota'"),
        ((), {"note": params}, "under 'note' it has Counter, not ParameterBuffer"),
        ((), {"model": params}, "nothing for ParameterBuffer 'model'"),
    ):
        with pytest.raises(CheckpointError, match=words) as caught:
            nb.restore(tmp_path / "a", *objects_, **named)
        assert "what it has: ParameterBuffer, Optimizer, Counter, note=Counter" in str(caught.value)


def test_what_cannot_be_saved(tmp_path):
    params = model()
    opt = momentum(params)
    clash = nb.ParameterBuffer.from_arrays({"learning_rate": [1.0]})
    slash = nb.ParameterBuffer.from_arrays({"ema/count": [1.0]})
    reserved = nb.ParameterBuffer.from_arrays({"__metadata__": [1.0]})
    for call, error, words in (
        (lambda: nb.save(tmp_path / "a"), TypeError, "needs an object"),
        (lambda: nb.restore(tmp_path / "a"), TypeError, "needs an object"),
        (lambda: nb.save(tmp_path / "a", params, params), TypeError, "same object twice"),
        (lambda: nb.save(tmp_path / "a", params, model=params), TypeError, "same object twice"),
        (lambda: nb.save(tmp_path / "a", params["fc.bias"]), TypeError, "got Parameter"),
        (lambda: nb.save(tmp_path / "a", {"w": 1}), TypeError, "got dict"),
        (lambda: nb.save(tmp_path / "a", Counter), TypeError, "got type"),
        (
            lambda: nb.save(tmp_path / "a", opt, momentum(params)),
            CheckpointError,
            r"'fc\.bias\.velocity'.*keyword",
        ),
        (lambda: nb.save(tmp_path / "a", opt, clash), CheckpointError, "'learning_rate'"),
        (lambda: nb.save(tmp_path / "a", slash, ema=Counter()), CheckpointError, "'ema/count'"),
        (lambda: nb.save(tmp_path / "a", reserved), CheckpointError, "'__metadata__'"),
        (lambda: nb.save(tmp_path / "a", **{"": params}), CheckpointError, "empty keyword"),
    ):
        with pytest.raises(error, match=words):
            call()
    assert not list(tmp_path.iterdir())
    nb.save(tmp_path / "a", model=reserved)


@pytest.mark.parametrize("state", [None, [1], {1: 2}])
def test_a_state_that_is_none(state, tmp_path):
    class Odd(Counter):
        def state_dict(self):
            return state

    with pytest.raises(TypeError, match=r"state_dict\(\) of Odd must return a dictionary with text for keys"):
        nb.save(tmp_path / "a", Odd())


def test_hidden_problems_of_a_section(tmp_path):
    """Absent gradients of parameters that are not there; values of a wrong kind where arrays belong."""

    class ParameterBuffer(Counter):
        def state_dict(self):
            return {"w": 1}

    nb.save(tmp_path / "a", ParameterBuffer())
    with pytest.raises(CheckpointError, match="w: got the value 1, need an array"):
        nb.restore(tmp_path / "a", nb.ParameterBuffer.from_arrays({"w": [1.0]}))

    class Optimizer(Counter):
        def state_dict(self):
            return {**opt.state_dict(), "w.step": np.zeros(2), "learning_rate": -1.0, "step_count": "x"}

    params = nb.ParameterBuffer.from_arrays({"w": [1.0]})
    opt = momentum(params)
    nb.save(tmp_path / "a", Optimizer())
    with pytest.raises(CheckpointError, match=r"w\.step: got an array, need a value") as caught:
        nb.restore(tmp_path / "a", opt)
    assert "learning_rate must be" in str(caught.value)
    assert "step_count must be an integer" in str(caught.value)


# --- threads and interrupts ------------------------------------------------------------------------


def test_a_pending_error_is_raised_first(tmp_path):
    params = model()
    opt = momentum(params)
    opt._tables.counters[[t.STATUS, t.CONSECUTIVE]] = 1
    with pytest.raises(NonFiniteGradientError):
        nb.save(tmp_path / "a", params, opt)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("call", [nb.save, nb.restore])
def test_not_while_another_thread_steps(call, tmp_path):
    params, opt = saved(tmp_path / "a")
    opt._tables.counters[t.BUSY] = 1
    before = (tmp_path / "a").read_bytes()
    with pytest.raises(ConcurrencyError, match="between steps"):
        call(tmp_path / "a", params, opt)
    assert (tmp_path / "a").read_bytes() == before


@pytest.mark.parametrize(
    ("call", "which"),
    [(nb.save, slice(2)), (nb.save, slice(1)), (nb.save, slice(1, 2)), (nb.export, slice(1))],
    ids=["save both", "save parameters", "save optimizer", "export"],
)
def test_a_step_during_a_save_is_noticed(call, which, tmp_path, monkeypatch):
    params, opt = saved(tmp_path / "a")
    before = (tmp_path / "a").read_bytes()

    def write_and_step(target, array):
        thread = threading.Thread(target=opt.step)
        thread.start()
        thread.join()
        return write_array(target, array)

    write_array = Target.write_array
    monkeypatch.setattr(Target, "write_array", write_and_step)
    with pytest.raises(ConcurrencyError, match="while it was saved; nothing was written"):
        call(tmp_path / "a", *(params, opt)[which])
    assert (tmp_path / "a").read_bytes() == before
    assert leftovers(tmp_path) == []


def test_the_digest_is_of_what_was_written(tmp_path, monkeypatch):
    """Other code may write to a value meanwhile; the file is whole all the same."""
    params, other = model(), model(seed=1)
    value = params["out.weight"].value

    def write_late(target, data):
        write(target, data)
        value[...] += 1.0

    write = Target.write
    monkeypatch.setattr(Target, "write", write_late)
    nb.save(tmp_path / "a", params)
    nb.restore(tmp_path / "a", other)
    assert other["out.weight"].value[0, 0] < value[0, 0]


@pytest.fixture
def interruptible():
    """Ctrl-C raises, also where the tests were started in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_waits_until_all_is_restored(tmp_path, monkeypatch):
    params, opt = saved(tmp_path / "a")
    other = model(seed=1)
    opt_other = momentum(other)
    interrupted = []

    def read_and_interrupt(self, name, array):
        read(self, name, array)
        if not interrupted:
            interrupted.append(name)
            os.kill(os.getpid(), signal.SIGINT)

    read = objects.Stored.read
    monkeypatch.setattr(objects.Stored, "read", read_and_interrupt)
    with pytest.raises(KeyboardInterrupt):
        nb.restore(tmp_path / "a", other, opt_other)
    assert interrupted == ["fc.weight_g"]
    assert other.fingerprint() == params.fingerprint()
    assert bits(opt_other.state_dict()) == bits(opt.state_dict())
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_restore_in_a_thread(tmp_path):
    params, _ = saved(tmp_path / "a")
    other = model(seed=1)
    thread = threading.Thread(target=nb.restore, args=(tmp_path / "a", other))
    thread.start()
    thread.join()
    assert other.fingerprint() == params.fingerprint()
