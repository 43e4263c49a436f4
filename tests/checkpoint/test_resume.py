"""A run that was saved and restored has the bits of one that never stopped, wherever it stopped."""

import os
import sys

import numpy as np
import pytest

import nbopt as nb
from tests.checkpoint import Counter, bits, gradients, model, momentum
from tests.kernels import ROOT, python

STEPS = 7
lr = nb.optimizer.lr


def mixed(params, step):
    """Gradients that are sometimes absent, sometimes zero, and sometimes only partly written."""
    grads = gradients(params, step)
    if step % 3 == 1:
        grads["fc.bias"] = None
    if step % 4 == 2:
        grads["fc.weight"] = None
    if step % 5 == 3:
        grads["out.weight"][...] = 0.0
    return grads


class Run:
    """A model with an optimizer and what belongs to it; `step(i)` takes step i."""

    def __init__(self, make, dtype, gradients=mixed):
        self.params = model(dtype)
        self.params["fc.bias"].learning_rate = 2.0
        self.params["out.weight"].regularizer = nb.regularizer.L1Decay(0.01)
        self.opt, self.others, self.after = make(self.params)
        self.gradients = gradients

    def step(self, i):
        self.opt.step(self.gradients(self.params, i))
        for function in self.after:
            function(i)

    def save(self, path):
        nb.save(path, self.params, self.opt, **self.others)

    def restore(self, path):
        nb.restore(path, self.params, self.opt, **self.others)

    def picture(self):
        states = {key: bits(thing.state_dict()) for key, thing in self.others.items()}
        present = [p.has_grad for p in self.params.values()]
        return (
            bits(self.params.numpy()),
            self.params.fingerprint(),
            bits(self.opt.state_dict()),
            states,
            present,
        )


def plain(make, **options):
    def build(params):
        return make(0.1, parameters=params, **options), {}, []

    return build


def scheduled(params):
    schedule = lr.LinearWarmup(lr.CosineAnnealingDecay(0.2, 5), 3, 0.01, 0.2)
    opt = nb.optimizer.Momentum(schedule, 0.9, params, use_nesterov=True)
    return opt, {"schedule": schedule}, [lambda i: schedule.step()]


def on_plateau(params):
    schedule = lr.ReduceOnPlateau(0.2, factor=0.5, patience=0, cooldown=1)
    opt = nb.optimizer.Momentum(schedule, 0.9, params)
    return opt, {}, [lambda i: schedule.step(float(np.abs(params["fc.weight"].value).sum()))]


def averaged(params):
    opt = momentum(params)
    mean = nb.ModelAverage(0.5, params, min_average_window=2, max_average_window=3)
    ema = nb.ExponentialMovingAverage(0.5, params)
    return opt, {"mean": mean, "ema": ema}, [lambda i: mean.step(), lambda i: ema.update()]


def driven_by_averages(params):
    """The next values depend on the average, so an average that is not the same shows in them."""
    opt, others, after = averaged(params)

    def pull(i):
        with others["ema"].apply():
            pulled = params["out.weight"].numpy()
        params["out.weight"].value = pulled

    return opt, others, [*after, pull]


class Remembering(nb.optimizer.lr.LRScheduler):
    """A schedule of the user's that goes by arrays; one is not finite, one comes later and grows."""

    def __init__(self, learning_rate):
        self.table, self.seen = np.full((2, 3), np.inf, order="F"), None
        super().__init__(learning_rate)

    def state_keys(self):
        self.keys = ["last_epoch", "last_lr", "table", "seen"]

    def get_lr(self):
        self.table[self.last_epoch % 2, self.last_epoch % 3] = self.last_epoch
        if self.last_epoch:
            self.seen = np.arange(self.last_epoch)
        return self.base_lr / (1.0 + self.table[np.isfinite(self.table)].sum() + np.size(self.seen))


def on_arrays(params):
    schedule = nb.optimizer.lr.LinearWarmup(Remembering(0.1), 1, 0.0, 0.1)
    return nb.optimizer.SGD(schedule, params), {}, [lambda i: schedule.step()]


def with_a_counter(params):
    counter, opt = Counter(0), momentum(params)

    def count(i):
        counter.count += 1
        counter.history = np.append(counter.history, params["scale"].value)
        opt.set_lr(0.1 / (1 + counter.count))

    return opt, {"counter": counter}, [count]


clip = nb.ClipGradByGlobalNorm(1.0)
MAKERS = {
    "momentum": plain(nb.optimizer.Momentum, weight_decay=0.01, grad_clip=clip),
    "nesterov": plain(
        nb.optimizer.Momentum, momentum=0.5, use_nesterov=True, grad_clip=nb.ClipGradByNorm(0.5)
    ),
    "sgd": plain(nb.optimizer.SGD, grad_clip=nb.ClipGradByValue(0.1)),
    "adam": plain(nb.optimizer.Adam, amsgrad=True, weight_decay=0.1),
    "adamw": plain(nb.optimizer.AdamW, grad_clip=clip),
    "schedule": scheduled,
    "plateau": on_plateau,
    "schedule of arrays": on_arrays,
    "averages": averaged,
    "driven by averages": driven_by_averages,
    "counter": with_a_counter,
}


def assert_resumes_at_every_step(make, dtype, folder, gradients=mixed):
    run = Run(make, dtype, gradients)
    pictures = []
    for i in range(STEPS + 1):
        run.save(folder / f"at {i}")
        pictures.append(run.picture())
        run.step(i)
    assert len(set(map(repr, pictures))) == len(pictures)  # every step changes something
    for stop in range(STEPS):
        again = Run(make, dtype, gradients)
        again.restore(folder / f"at {stop}")
        for i in range(stop, STEPS):
            assert again.picture() == pictures[i], f"resumed at {stop}, before step {i}"
            again.step(i)
        assert again.picture() == pictures[STEPS]


CASES = [(name, "float32") for name in MAKERS if name != "adam"]  # as adamw
CASES += [(name, "float64") for name in ("momentum", "nesterov", "adam", "averages", "counter")]


@pytest.mark.parametrize(("name", "dtype"), CASES)
def test_resuming_at_every_step(name, dtype, tmp_path):
    assert_resumes_at_every_step(MAKERS[name], dtype, tmp_path)


def test_resuming_while_steps_are_skipped(tmp_path):
    """The count of refusals in a row goes on: the tenth raises."""

    def bad(params, step):
        return {name: np.full(p.shape, np.nan) for name, p in params.items()}

    make = plain(nb.optimizer.Momentum, nonfinite="skip")
    assert_resumes_at_every_step(make, "float32", tmp_path, bad)
    again = Run(make, "float32", bad)
    again.restore(tmp_path / f"at {STEPS}")
    for i in range(9 - STEPS):
        again.step(i)
    with pytest.raises(nb.errors.NonFiniteGradientError, match="10 refusals in a row"):
        again.step(9)


def test_gradients_that_are_written_into_the_views(tmp_path):
    """Absent gradients stay absent until one is written; zeros written to them do not count."""

    def run(params, opt, steps):
        for i in steps:
            opt.clear_grad(set_to_zero=False)
            for name, grad in gradients(params, i).items():
                if (i + len(name)) % 2:
                    params[name].grad[...] = grad
            opt.step()

    params, again = model(), model()
    opt, opt_again = (momentum(p, weight_decay=0.1) for p in (params, again))
    run(params, opt, range(3))
    nb.save(tmp_path / "a", params, opt)
    run(params, opt, range(3, 6))
    nb.restore(tmp_path / "a", again, opt_again)
    run(again, opt_again, range(3, 6))
    assert again.fingerprint() == params.fingerprint()
    assert bits(opt_again.state_dict()) == bits(opt.state_dict())


def test_back_to_an_earlier_point_of_the_same_run(tmp_path):
    """A run that went wrong goes back, whatever its gradients hold by then."""
    run = Run(MAKERS["momentum"], "float32")
    for i in range(3):
        run.step(i)
    run.save(tmp_path / "a")
    good = run.picture()
    for i in range(3, 6):
        run.step(i)
    after = run.picture()
    run.params.set_grads({name: np.full(p.shape, np.nan) for name, p in run.params.items()})
    run.restore(tmp_path / "a")
    assert run.picture() == good
    for i in range(3, 6):
        run.step(i)
    assert run.picture() == after


def test_two_optimizers_of_one_buffer(tmp_path):
    def make():
        params = model()
        fast = nb.optimizer.Momentum(0.1, parameters=[params["fc.weight"]])
        slow = nb.optimizer.SGD(0.01, [params["fc.bias"], params["scale"]])
        return params, fast, slow

    def steps(objects, numbers):
        params, *opts = objects
        for i in numbers:
            grads = gradients(params, i)
            for opt in opts:
                opt.step({p.name: grads[p.name] for p in opt.parameters})

    one, two = make(), make()
    steps(one, range(3))
    nb.save(tmp_path / "a", one[0], fast=one[1], slow=one[2])
    nb.restore(tmp_path / "a", two[0], slow=two[2], fast=two[1])
    for objects in (one, two):
        steps(objects, range(3, 6))
    assert one[0].fingerprint() == two[0].fingerprint()


# --- fresh processes -------------------------------------------------------------------------------

ONE_STEP = """
import os, sys
import nbopt as nb
from tests.checkpoint import model, momentum, gradients
params = model(seed=int(sys.argv[2]))  # another seed: nothing but the file brings the values
opt = momentum(params, grad_clip=nb.ClipGradByGlobalNorm(1.0), use_nesterov=True)
if os.path.exists(sys.argv[1]):
    nb.restore(sys.argv[1], params, opt)
step = opt.step_count
opt.step(gradients(params, step))
nb.save(sys.argv[1], params, opt)
print(step, params.fingerprint())
"""


def test_a_process_for_every_step(tmp_path):
    """Momentum with weight norm, and other numbers of threads."""
    params = model(seed=0)
    opt = momentum(params, grad_clip=nb.ClipGradByGlobalNorm(1.0), use_nesterov=True)
    for i in range(4):
        opt.step(gradients(params, i))
        environment = {
            "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]),
            "NUMBA_NUM_THREADS": str(1 + i % 2),
        }
        told = python("-c", ONE_STEP, str(tmp_path / "run"), str(i), **environment)
        assert told.split() == [str(i), params.fingerprint()]
    assert bits(nb.load(tmp_path / "run")).items() >= bits(opt.state_dict()).items()
