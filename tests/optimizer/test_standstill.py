"""States that are read or filled in while another thread steps."""

import copy
import pickle
import threading

import numpy as np
import pytest

import nbopt as nb
from nbopt.errors import ConcurrencyError
from nbopt.kernels import tables as t
from nbopt.memory import _Host
from nbopt.optimizer import state


def made():
    params = nb.ParameterBuffer.from_arrays({"w": np.ones(5)})
    opt = nb.optimizer.Momentum(0.1, parameters=params)
    opt.step({"w": np.ones(5)})
    return params, opt


def in_a_thread(work):
    """Run it in another thread; return what it raised."""
    found = []

    def run():
        try:
            found.append(work())
        except ConcurrencyError as error:
            found.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return found[0]


def test_not_during_a_step():
    _, opt = made()
    saved = opt.state_dict()
    opt._tables.counters[t.BUSY] = 1
    for call in (opt.state_dict, lambda: opt.set_state_dict(saved)):
        with pytest.raises(ConcurrencyError, match="is stepping this Momentum; save, load"):
            call()
    opt._tables.counters[t.BUSY] = 0
    opt.set_state_dict(saved)
    opt.step()


@pytest.mark.parametrize("how", [copy.copy, copy.deepcopy, pickle.dumps])
def test_no_copy_during_a_step(how):
    params, opt = made()
    opt._tables.counters[t.BUSY] = 1
    for thing in (opt, (params, opt), {"run": opt}):
        if how is not copy.copy or thing is opt:
            with pytest.raises(ConcurrencyError, match="is stepping this Momentum"):
                how(thing)
    opt._tables.counters[t.BUSY] = 0
    how(opt)


def test_a_step_while_it_is_copied(monkeypatch):
    _, opt = made()
    unpack = state.unpack

    def step_late(saved):
        assert in_a_thread(opt.step) is None
        return unpack(saved)

    monkeypatch.setattr(state, "unpack", step_late)
    with pytest.raises(ConcurrencyError, match="stepped this Momentum while it was copied"):
        copy.deepcopy(opt)
    monkeypatch.undo()
    copied, twin = copy.deepcopy([opt, opt])
    assert copied is twin
    assert copied.step_count == opt.step_count == 2


def test_a_step_while_the_state_is_read(monkeypatch):
    _, opt = made()
    live = state.live

    def step_late(opt):
        found = live(opt)
        assert in_a_thread(opt.step) is None
        return found

    monkeypatch.setattr(state, "live", step_late)
    with pytest.raises(ConcurrencyError, match="stepped this Momentum while its state was read"):
        opt.state_dict()


@pytest.mark.parametrize("how", ["set_state_dict", "restore"])
def test_no_step_while_a_state_is_filled_in(how, tmp_path, monkeypatch):
    """Neither from Python nor from compiled code."""
    params, opt = made()
    nb.save(tmp_path / "a", params, opt)
    saved, velocity = opt.state_dict(), opt.state_dict()["w.velocity"]
    opt.step()
    step, jit_state = opt.jit_step()
    write, told = _Host.write, []

    def steps():
        told.append((type(in_a_thread(opt.step)), in_a_thread(lambda: step(jit_state))))

    if how == "restore":
        from nbopt.checkpoint.stored import Stored

        read = Stored.read
        monkeypatch.setattr(Stored, "read", lambda *args: (steps(), read(*args))[1])
        nb.restore(tmp_path / "a", params, opt)
    else:
        monkeypatch.setattr(_Host, "write", lambda *args: (steps(), write(*args))[1])
        opt.set_state_dict(saved)
    assert set(told) == {(ConcurrencyError, t.CONCURRENT)}
    monkeypatch.undo()
    assert (opt.step_count, opt.state_dict()["w.velocity"].tobytes()) == (1, velocity.tobytes())
    assert step(jit_state) == 0


def test_a_step_that_began_in_the_instant_before(monkeypatch):
    _, opt = made()
    saved, write = opt.state_dict(), _Host.write

    def end_of_step(*args):
        write(*args)
        opt._tables.counters[t.BUSY] = 0

    monkeypatch.setattr(_Host, "write", end_of_step)
    with pytest.raises(ConcurrencyError, match="a mixture now: load or restore it again"):
        opt.set_state_dict(saved)


def test_an_object_is_taken_back_where_a_step_is_under_way(tmp_path):
    class Note:
        def __init__(self, opt=None):
            self.opt, self.text = opt, "own"

        def state_dict(self):
            return {"text": self.text}

        def set_state_dict(self, state):
            self.text = state["text"]
            if self.opt is not None:
                self.opt._tables.counters[t.BUSY] = 1

    params, opt = made()
    note = Note()
    note.text = "saved"
    nb.save(tmp_path / "a", params, opt, note)
    note = Note(opt)
    before = params.fingerprint()
    opt.step()
    after = params.fingerprint()
    with pytest.raises(ConcurrencyError, match="stepping what is restored"):
        nb.restore(tmp_path / "a", params, opt, note)
    assert note.text == "own"
    assert before != params.fingerprint() == after
