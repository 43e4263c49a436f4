"""What schedules remember: their dictionaries, resuming, copies and pickles."""

import copy
import io
import json
import pickle
from functools import partial

import numpy as np
import pytest

import nbopt as nb
from nbopt.errors import HyperparameterError, StateDictError
from tests.optimizer import expand, frozen_bytes, gradients, picture, refuses, small
from tests.optimizer.schedules import CLOSED, STATEFUL, Halving, advance, lr, walk

NAN, INF = float("nan"), float("inf")
ALL = CLOSED | STATEFUL
every_schedule = pytest.mark.parametrize("name", ALL)


def run(schedule, begin, end):
    for epoch in range(begin, end):
        advance(schedule, epoch)


# --- dictionaries of schedules --------------------------------------------------------------------


def test_keys_are_those_of_paddle():
    assert lr.StepDecay(0.5, 1).state_dict() == {"last_epoch": 0, "last_lr": 0.5}
    plain = lr.LinearWarmup(0.5, 2, 0.0, 0.5)
    assert plain.state_dict() == {"last_epoch": 0, "last_lr": 0.0}
    nested = lr.LinearWarmup(lr.StepDecay(0.5, 1), 2, 0.0, 0.5)
    assert nested.state_dict() == {
        "last_epoch": 0,
        "last_lr": 0.0,
        "LinearWarmup_LR": {"last_epoch": 0, "last_lr": 0.5},
    }
    plateau = lr.ReduceOnPlateau(0.5)
    plateau.step(3)
    keys = ["cooldown_counter", "best", "num_bad_epochs", "last_epoch", "last_lr"]
    assert list(plateau.state_dict().items()) == list(zip(keys, [0, 3.0, 0, 1, 0.5], strict=True))
    plateau.state_keys()
    assert plateau.keys == keys


@every_schedule
@pytest.mark.parametrize("stop", [0, 1, 4, 5, 13, 30])
def test_a_schedule_goes_on_where_it_was_saved(name, stop):
    """To the bit, into a fresh one and into one that is elsewhere."""
    schedule = ALL[name]()
    run(schedule, 0, stop)
    saved = schedule.state_dict()
    fresh, other = ALL[name](), ALL[name]()
    run(other, 0, 7)
    for again, load in ((fresh, "set_state_dict"), (other, "set_dict")):
        assert getattr(again, load)(saved) is None
        assert again.state_dict() == saved
    for epoch in range(stop, stop + 25):
        for each in (schedule, fresh, other):
            advance(each, epoch)
        assert fresh() == other() == schedule()
        kept = {key: value for key, value in schedule.state_dict().items() if key != "asked"}
        assert {key: value for key, value in fresh.state_dict().items() if key != "asked"} == kept


@every_schedule
def test_a_snapshot_is_plain_and_stays(name):
    schedule = ALL[name]()
    run(schedule, 0, 9)
    saved = schedule.state_dict()
    text = repr(saved)
    assert repr(json.loads(json.dumps(saved))) == text  # numbers, texts and dictionaries of them
    run(schedule, 9, 12)
    assert repr(saved) == text


def test_what_a_subclass_remembers_is_copied():
    class Listing(Halving):
        def __init__(self):
            self.seen = []
            super().__init__(1.0)

        def state_keys(self):
            self.keys = ["last_epoch", "last_lr", "seen", "never_set"]

        def get_lr(self):
            self.seen.append(self.last_epoch)
            return 1.0

    schedule, again = Listing(), Listing()
    schedule.step()
    saved = schedule.state_dict()
    assert saved == {"last_epoch": 1, "last_lr": 1.0, "seen": [0, 1]}
    again.set_state_dict(saved)
    again.step()
    schedule.step()
    assert saved["seen"] == [0, 1]
    assert again.seen == schedule.seen == [0, 1, 2]


def test_numbers_of_every_kind_load():
    schedule = lr.StepDecay(0.5, 1)
    schedule.set_state_dict({"last_epoch": np.int32(3), "last_lr": np.array(0.25)})
    assert (schedule.last_epoch, schedule()) == (3, 0.25)
    assert type(schedule.last_epoch) is int
    assert type(schedule()) is float
    plateau = lr.ReduceOnPlateau(0.5)
    plateau.set_state_dict({**plateau.state_dict(), "best": -INF})
    assert plateau.best == -INF


def test_not_strict_takes_what_is_there():
    schedule = lr.LinearWarmup(lr.StepDecay(0.4, 2), 3, 0.0, 0.4)
    schedule.set_state_dict({"last_epoch": 9, "junk": 1, "LinearWarmup_LR": {"last_epoch": 6}}, strict=False)
    assert (schedule.last_epoch, schedule.learning_rate.last_epoch) == (9, 6)
    schedule.step()
    assert schedule() == walk(lr.LinearWarmup(lr.StepDecay(0.4, 2), 3, 0.0, 0.4), 11)[10]
    before = schedule.state_dict()
    for wrong in ({"last_lr": -1.0}, {"LinearWarmup_LR": {"last_epoch": 1.5}}):  # still refused
        with pytest.raises(StateDictError, match="nothing was changed"):
            schedule.set_state_dict({"last_epoch": 3} | wrong, strict=False)
        assert schedule.state_dict() == before


BAD = {
    "S10-junk": ({"hello": 1}, "unexpected: hello"),
    "number-as-key": ({3: 1}, "unexpected: 3"),
    "no-epoch": ({"last_epoch": ...}, "missing: last_epoch"),
    "no-rate": ({"last_lr": ...}, "missing: last_lr"),
    "no-inner": ({"LinearWarmup_LR": ...}, "missing: LinearWarmup_LR"),
    "epoch-negative": ({"last_epoch": -1}, "last_epoch >= 0 -1"),
    "epoch-float": ({"last_epoch": 1.0}, "last_epoch integer 1.0"),
    "epoch-true": ({"last_epoch": True}, "last_epoch integer True"),
    "epoch-huge": ({"last_epoch": 2**63}, "last_epoch 2**63"),
    "rate-negative": ({"last_lr": -9.0}, "last_lr >= 0 -9.0"),
    "rate-nan": ({"last_lr": NAN}, "last_lr finite nan"),
    "rate-inf": ({"last_lr": INF}, "last_lr finite inf"),
    "rate-string": ({"last_lr": "abc"}, "last_lr number 'abc'"),
    "rate-none": ({"last_lr": None}, "last_lr number None"),
    "inner-number": ({"LinearWarmup_LR": 3}, "state_dict dictionary int"),
    "inner-empty": ({"LinearWarmup_LR": {}}, "LinearWarmup_LR: missing last_epoch, last_lr"),
    "inner-wrong": (
        {"LinearWarmup_LR": {"last_epoch": 1.5, "last_lr": -1, "x": 0}},
        "LinearWarmup_LR unexpected: x last_epoch integer 1.5 last_lr >= 0 -1.0",
    ),
    "everything": ({"last_epoch": 1.5, "last_lr": -1, "x": 0}, "unexpected: x last_epoch 1.5 last_lr -1.0"),
}


@pytest.mark.parametrize(("change", "words"), expand("", BAD))
def test_state_refused(change, words):
    schedule, fresh = (lr.LinearWarmup(lr.StepDecay(0.4, 2), 3, 0.0, 0.4) for _ in range(2))
    params = small()
    opt = nb.optimizer.SGD(schedule, params)
    schedule.step(7)
    before = schedule.state_dict()
    state = {key: value for key, value in {**fresh.state_dict(), **change}.items() if value is not ...}
    words = f"LinearWarmup nothing {words}"
    refuses(lambda: schedule.set_state_dict(state), StateDictError, words, params, opt)
    assert schedule.state_dict() == before


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"best": NAN}, "best nan"),
        ({"best": "1"}, "best '1'"),
        ({"best": None}, "best None"),
        ({"cooldown_counter": -1}, "cooldown_counter >= 0 -1"),
        ({"num_bad_epochs": 0.5}, "num_bad_epochs integer 0.5"),
    ],
)
def test_state_of_a_plateau_refused(change, words):
    schedule = lr.ReduceOnPlateau(0.5)
    before = schedule.state_dict()
    with pytest.raises(StateDictError) as caught:
        schedule.set_state_dict({**before, "last_epoch": 9, **change})
    assert [word for word in words.split() if word not in str(caught.value)] == []
    assert schedule.state_dict() == before


@pytest.mark.parametrize("state", [None, 3, "state", [("last_epoch", 1)]], ids=type)
def test_what_is_no_dictionary(state):
    schedule = lr.StepDecay(0.5, 1)
    with pytest.raises(TypeError, match=f"state_dict must be a dictionary, got {type(state).__name__}"):
        schedule.set_state_dict(state)
    with pytest.raises(TypeError, match="strict must be True or False"):
        schedule.set_state_dict({}, strict=0)


# --- dictionaries of optimizers -------------------------------------------------------------------

SCALARS = {"rule", "learning_rate", "step_count", "steps_skipped", "steps_skipped_in_a_row"}


def test_an_optimizer_holds_the_state_of_its_schedule():
    params = small()
    opt = nb.optimizer.SGD(lr.StepDecay(0.5, 1), params)
    flat = {"LR_Scheduler.last_epoch": 0, "LR_Scheduler.last_lr": 0.5}
    state = opt.state_dict()
    assert set(state) == {"w.step", "b.step", "k.step", *SCALARS, *flat}
    assert {key: state[key] for key in flat} == flat
    warm = lr.LinearWarmup(lr.LinearWarmup(lr.StepDecay(0.5, 1), 1, 0.1, 0.2), 1, 0.0, 0.1)
    opt.set_lr_scheduler(warm)
    keys = [key for key in opt.state_dict() if key.startswith("LR_Scheduler")]
    inner = "LR_Scheduler.LinearWarmup_LR"
    places = ["LR_Scheduler", inner, f"{inner}.LinearWarmup_LR"]
    assert keys == [f"{place}.{key}" for place in places for key in ("last_epoch", "last_lr")]
    opt.set_lr_scheduler(None)
    assert set(opt.state_dict()) == set(state) - set(flat)


def train(params, opt, schedule, begin, end):
    for step in range(begin, end):
        opt.step(gradients(params, step))
        advance(schedule, step)


def driven(name, rule=nb.optimizer.Momentum):
    params, schedule = small(), ALL[name]()
    return params, rule(schedule, parameters=params), schedule


@every_schedule
def test_a_run_resumes_with_the_same_bits(name):
    """From what numpy.savez wrote."""
    params, opt, schedule = driven(name)
    train(params, opt, schedule, 0, 7)
    file = io.BytesIO()
    np.savez(file, **opt.state_dict())
    again, opt_again, schedule_again = driven(name)
    train(again, opt_again, schedule_again, 0, 2)
    again.from_vector(params.to_vector())
    file.seek(0)
    with np.load(file, allow_pickle=False) as saved:
        opt_again.set_state_dict(saved)
    assert frozen_bytes(opt_again.state_dict()) == frozen_bytes(opt.state_dict())
    train(params, opt, schedule, 7, 20)
    train(again, opt_again, schedule_again, 7, 20)
    assert again.fingerprint() == params.fingerprint()


@pytest.mark.parametrize("name", ["warmup_exp", "cosine_wr", "plateau", "warmup-own-recursive"])
def test_a_checkpoint_holds_a_schedule(name, tmp_path):
    params, opt, schedule = driven(name)
    train(params, opt, schedule, 0, 7)
    nb.save(tmp_path / "run", params, opt, schedule=schedule)
    for objects in (lambda p, o, s: ((p, o), {}), lambda p, o, s: ((p, o), {"schedule": s})):
        again = driven(name)
        positional, named = objects(*again)
        nb.restore(tmp_path / "run", *positional, **named)
        assert again[2].state_dict() == schedule.state_dict()
        assert again[1].get_lr() == opt.get_lr()


WRONG = {
    "missing": ({"LR_Scheduler.last_epoch": ...}, "missing LR_Scheduler.last_epoch"),
    "missing-inner": ({"LR_Scheduler.LinearWarmup_LR.last_lr": ...}, "LR_Scheduler.LinearWarmup_LR.last_lr"),
    "unexpected": ({"LR_Scheduler.x": 1}, "unexpected LR_Scheduler.x"),
    "nested": ({"LR_Scheduler": {"last_epoch": 1}}, "unexpected LR_Scheduler"),
    "rate": ({"LR_Scheduler.last_lr": -1.0}, "LR_Scheduler.last_lr >= 0 -1.0"),
    "epoch": ({"LR_Scheduler.last_epoch": 1.5}, "LR_Scheduler.last_epoch integer 1.5"),
    "inner": ({"LR_Scheduler.LinearWarmup_LR.last_epoch": -1}, "LinearWarmup_LR last_epoch >= 0 -1"),
    "elsewhere": ({"w.velocity": np.zeros(1)}, "w.velocity (1,)"),
    "too-large": ({"LR_Scheduler.last_lr": 1e39}, "1e+39 float32 inf"),
    "learning-rate": ({"learning_rate": "x"}, "learning_rate number 'x'"),
}


@pytest.mark.parametrize(("change", "words"), expand("", WRONG))
def test_state_of_an_optimizer_refused(change, words):
    """Nothing changes, neither in the optimizer nor in its schedule, nor in another that follows."""
    params, other = small("float32"), small("float32")
    schedule = lr.LinearWarmup(lr.StepDecay(0.4, 2), 3, 0.0, 0.4)
    opt, second = nb.optimizer.Momentum(schedule, 0.9, params), nb.optimizer.SGD(schedule, other)
    state = opt.state_dict()
    train(params, opt, schedule, 0, 6)
    before = schedule.state_dict(), second.get_lr()
    state = {key: value for key, value in {**state, **change}.items() if value is not ...}
    refuses(lambda: opt.set_state_dict(state), StateDictError, words, params, opt)
    assert (schedule.state_dict(), second.get_lr()) == before


def test_with_and_without_a_schedule():
    params = small()
    plain, scheduled = nb.optimizer.SGD(0.1, params), nb.optimizer.SGD(lr.StepDecay(0.5, 1), params)
    words = "missing LR_Scheduler.last_epoch"
    refuses(lambda: scheduled.set_state_dict(plain.state_dict()), StateDictError, words, params, scheduled)
    words = "unexpected LR_Scheduler.last_epoch"
    refuses(lambda: plain.set_state_dict(scheduled.state_dict()), StateDictError, words, params, plain)
    scheduled.set_state_dict(plain.state_dict(), strict=False)
    assert scheduled.get_lr() == 0.5  # a schedule decides, not a number
    plain.set_state_dict(scheduled.state_dict(), strict=False)
    assert plain.get_lr() == 0.5


@pytest.mark.parametrize("order", [list, reversed])
def test_no_order_of_loading_goes_wrong(order):
    """Two optimizers and their schedule, each from its own dictionary."""
    params, other, schedule = small(), small(), lr.CosineAnnealingWarmRestarts(0.5, 3, 2)
    opts = [nb.optimizer.SGD(schedule, params), nb.optimizer.Momentum(schedule, parameters=other)]
    schedule.step(7)
    things = [*opts, schedule]
    states = [thing.state_dict() for thing in things]
    rates = walk(schedule, 5)
    for thing, state in order(list(zip(things, states, strict=True))):
        thing.set_state_dict(state)
        assert {opt.get_lr() for opt in opts} == {schedule()}
    assert walk(schedule, 5) == rates


def test_the_key_of_the_state_is_no_name_of_a_parameter():
    nb.optimizer.SGD(lr.StepDecay(0.5, 1), nb.ParameterBuffer.from_arrays({"LR_Scheduler_v": [1.0]}))
    for name in ("LR_Scheduler", "LR_Scheduler.LinearWarmup_LR"):
        params = nb.ParameterBuffer.from_arrays({"w": [1.0], name: [1.0]})
        make = partial(nb.optimizer.SGD, lr.StepDecay(0.5, 1))
        refuses(lambda make=make, params=params: make(params), nb.errors.ParameterError, name, params)
        opt = nb.optimizer.SGD(0.1, params)
        call = partial(opt.set_lr_scheduler, lr.StepDecay(0.5, 1))
        refuses(call, nb.errors.ParameterError, f"{name} LR_Scheduler", params, opt)


# --- copies and pickles ---------------------------------------------------------------------------

COPIES = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda value: pickle.loads(pickle.dumps(value)),
    "pickle-2": lambda value: pickle.loads(pickle.dumps(value, protocol=2)),
}
every_copy = pytest.mark.parametrize("duplicate", COPIES.values(), ids=COPIES)
# Functions of no module cannot be pickled.
LOCAL = {"lambda", "multiplicative", "cyclic-own"}


@every_copy
@pytest.mark.parametrize("order", ["params opt schedule", "schedule opt params", "opt schedule params"])
@every_schedule
def test_copies_keep_what_is_tied(name, order, duplicate):
    if name in LOCAL and duplicate is not copy.deepcopy:
        with pytest.raises((pickle.PicklingError, AttributeError)):
            duplicate(ALL[name]())
        return
    found = dict(zip(("params", "opt", "schedule"), driven(name), strict=True))
    train(*found.values(), 0, 5)
    copied = dict(zip(order.split(), duplicate([found[key] for key in order.split()]), strict=True))
    params, opt, schedule = (copied[key] for key in ("params", "opt", "schedule"))
    assert schedule.state_dict() == found["schedule"].state_dict()
    before = picture(params, opt)
    train(*found.values(), 5, 9)
    assert picture(params, opt) == before  # apart
    train(params, opt, schedule, 5, 9)
    assert params.fingerprint() == found["params"].fingerprint()
    assert frozen_bytes(opt.state_dict()) == frozen_bytes(found["opt"].state_dict())


@every_copy
def test_copies_of_two_optimizers_share_the_copied_schedule(duplicate):
    schedule = lr.StepDecay(0.5, 1)
    opts = [nb.optimizer.SGD(schedule, small()) for _ in range(2)]
    copied, first, second = duplicate((schedule, *opts))
    copied.step()
    assert first.get_lr() == second.get_lr() == 0.05
    assert {opt.get_lr() for opt in opts} == {0.5}
    schedule.step(2)
    assert {first.get_lr(), second.get_lr()} == {0.05}


@every_copy
def test_a_copy_alone(duplicate):
    """Of a schedule, it drives nothing; of an optimizer, it has a schedule of its own."""
    schedule = lr.StepDecay(0.5, 1)
    opt = nb.optimizer.SGD(schedule, small())
    duplicate(schedule).step()
    copy.copy(schedule).step()
    assert opt.get_lr() == 0.5
    twin = duplicate(opt)
    schedule.step()
    assert (opt.get_lr(), twin.get_lr()) == (0.05, 0.5)
    with pytest.raises(RuntimeError, match="follows a StepDecay"):
        twin.set_lr(1.0)
    twin.set_lr_scheduler(None)
    twin.set_lr(1.0)
    assert (opt.get_lr(), twin.get_lr()) == (0.05, 1.0)


def test_a_schedule_may_know_its_optimizer():
    class Knowing(lr.LRScheduler):
        opt = None

        def get_lr(self):
            return 1.0 + self.last_epoch

    schedule = Knowing(1.0)
    schedule.opt = nb.optimizer.SGD(schedule, small())
    for twin in (copy.deepcopy(schedule), copy.deepcopy(schedule.opt)._scheduler):
        assert twin is not schedule
        twin.step()
        assert (twin.opt.get_lr(), schedule.opt.get_lr()) == (2.0, 1.0)


def test_a_rate_that_a_copy_cannot_take_is_refused():
    """float32 holds no 1e39."""
    schedule = lr.MultiplicativeDecay(1e38, lambda epoch: 10.0)
    wide, narrow = nb.optimizer.SGD(schedule, small()), nb.optimizer.SGD(schedule, small("float32"))
    with pytest.raises(HyperparameterError, match=r"MultiplicativeDecay at step 1.*float32"):
        schedule.step()
    assert (wide.get_lr(), narrow.get_lr(), schedule.last_epoch) == (1e38, 1e38, 0)
