"""Wrong states and wrong files."""

import numpy as np

import nbopt as nb
from nbopt.errors import CheckpointError, ParameterError, StateDictError
from tests.errors import INF, NAN

FIT = "the state dictionary does not fit this Momentum; nothing was changed: ... "


def load(strict=True, **changes):
    return lambda m: m.opt.set_state_dict(m.state(**changes), strict)


def restored(*make, **named):
    """A call that restores the file into what functions of the model return."""
    return lambda m: nb.restore(
        m.path, *(one(m) for one in make), **{name: one(m) for name, one in named.items()}
    )


def write(m, text):
    path = m.folder / "other.safetensors"
    path.write_bytes(text)
    return path


class Forgetful:
    def state_dict(self):
        return [1, 2]

    def set_state_dict(self, state):
        pass


class Odd:
    def state_dict(self):
        return {"what": object()}

    def set_state_dict(self, state):
        pass


STATES = {
    "state-number": (
        lambda m: m.opt.set_state_dict(1),
        TypeError,
        "state_dict must be a dictionary, got int",
    ),
    "state-none": (
        lambda m: m.opt.load_state_dict(None),
        TypeError,
        "state_dict must be a dictionary, got NoneType",
    ),
    "state-strict": (
        lambda m: m.opt.set_state_dict({}, 1),
        TypeError,
        "strict must be True or False, got int 1",
    ),
    "state-empty": (
        lambda m: m.opt.set_state_dict({}),
        StateDictError,
        FIT + "missing: w.velocity, w.step, b.velocity",
    ),
    "state-missing": (load(w__velocity=None), StateDictError, FIT + "missing: w.velocity"),
    "state-unexpected": (load(k__velocity=np.ones(3)), StateDictError, FIT + "unexpected: k.velocity"),
    "state-shape": (
        load(w__velocity=np.ones((3, 2), np.float32)),
        StateDictError,
        FIT + "w.velocity: got float32 of shape (3, 2), need float32 of shape (2, 3)",
    ),
    "state-dtype": (
        load(w__velocity=np.ones((2, 3))),
        StateDictError,
        FIT + "w.velocity: got float64 of shape (2, 3), need float32",
    ),
    "state-integers": (
        load(b__velocity=np.ones(3, int)),
        StateDictError,
        FIT + "b.velocity: got int64 of shape (3,), need float32",
    ),
    "state-text": (
        load(b__velocity="abc"),
        StateDictError,
        FIT + "b.velocity: got <U3 of shape (), need float32 of shape (3,)",
    ),
    "state-ragged": (
        load(b__velocity=[[1], [1, 2]]),
        StateDictError,
        FIT + "b.velocity is no array of numbers",
    ),
    "state-nan": (
        load(b__velocity=np.full(3, NAN, np.float32)),
        StateDictError,
        FIT + "b.velocity: holds NaN or Inf",
    ),
    "state-step-negative": (load(w__step=-1), StateDictError, FIT + "w.step must be >= 0, got -1"),
    "state-step-float": (load(w__step=1.5), StateDictError, FIT + "w.step must be an integer, got float 1.5"),
    "state-step-huge": (load(w__step=2**63), StateDictError, FIT + "w.step: 9223372036854775808 is no count"),
    "state-rate-negative": (
        load(learning_rate=-0.1),
        StateDictError,
        FIT + "learning_rate must be a finite number >= 0, got -0.1",
    ),
    "state-rate-inf": (
        load(learning_rate=INF),
        StateDictError,
        FIT + "learning_rate must be a finite number >= 0, got inf",
    ),
    "state-count-text": (
        load(step_count="3"),
        StateDictError,
        FIT + "step_count must be an integer, got str '3'",
    ),
    "state-rule": (load(rule="adam"), StateDictError, FIT + "it belongs to the rule 'adam', not 'momentum'"),
    "state-rule-lax": (
        load(strict=False, rule=3),
        StateDictError,
        FIT + "it belongs to the rule 3, not 'momentum'",
    ),
    "state-several": (
        load(w__step=-1, b__step=None),
        StateDictError,
        FIT + "missing: b.step ... w.step must be >= 0, got -1",
    ),
    "state-number-keys": (
        lambda m: m.opt.set_state_dict({0: 1, **m.state()}),
        StateDictError,
        FIT + "unexpected: 0",
    ),
    "state-of-sgd": (
        lambda m: m.opt.set_state_dict(nb.optimizer.SGD(0.1, m.params).state_dict()),
        StateDictError,
        FIT + "it belongs to the rule 'sgd', not 'momentum' ... missing: w.velocity",
    ),
    "state-without-schedule": (
        lambda m: m.scheduled.set_state_dict(m.state()),
        StateDictError,
        FIT + "it was saved without a schedule, and this Momentum follows a StepDecay: call set_lr_sch",
    ),
    "state-with-schedule": (
        lambda m: m.opt.set_state_dict(m.scheduled.state_dict()),
        StateDictError,
        FIT + "it was saved with a schedule, which this Momentum has not: call set_lr_scheduler",
    ),
    "state-schedule-rate": (
        lambda m: m.scheduled.set_state_dict({**m.scheduled.state_dict(), "LR_Scheduler.last_lr": -1.0}),
        StateDictError,
        FIT + "LR_Scheduler.last_lr must be a finite number >= 0, got -1.0",
    ),
    "schedule-empty": (
        lambda m: m.schedule.set_state_dict({}),
        StateDictError,
        "does not fit this StepDecay; ... missing: last_epoch, last_lr",
    ),
    "schedule-epoch": (
        lambda m: m.schedule.set_state_dict({"last_epoch": -1, "last_lr": 0.1}),
        StateDictError,
        "last_epoch must be >= 0, got -1",
    ),
    "schedule-list": (
        lambda m: m.schedule.set_state_dict([3]),
        TypeError,
        "state_dict must be a dictionary, got list",
    ),
    "average-empty": (
        lambda m: m.average.set_state_dict({}),
        StateDictError,
        "does not fit this ModelAverage; ... missing: w.sum_1",
    ),
    "average-count": (
        lambda m: m.average.set_state_dict({"w.num_updates": -1}, strict=False),
        StateDictError,
        "w.num_updates must be >= 0, got -1",
    ),
    "average-shape": (
        lambda m: m.average.set_state_dict({"w.sum_1": np.ones(2)}, strict=False),
        StateDictError,
        "w.sum_1: got float64 of shape (2,), need float32 of shape (2, 3)",
    ),
}

FILES = {
    "save-swapped": (
        lambda m: nb.save(m.params, "run"),
        TypeError,
        "nbopt.save got a path among the objects; it comes first: write nbopt.save(path, params, opt)",
    ),
    "save-no-path": (
        lambda m: nb.save(m.params, m.opt),
        TypeError,
        "path must be a string or a path, got ParameterBuffer; it comes first",
    ),
    "save-nothing": (
        lambda m: nb.save(m.folder / "x"),
        TypeError,
        "nbopt.save needs an object: write nbopt.save(path, params, opt)",
    ),
    "save-dictionary": (
        lambda m: nb.save(m.folder / "x", {"w": 1}),
        TypeError,
        "nbopt.save takes a ParameterBuffer, an optimizer, or an object with state_dict() ... got dict",
    ),
    "save-class": (
        lambda m: nb.save(m.folder / "x", nb.optimizer.SGD),
        TypeError,
        "nbopt.save takes a ParameterBuffer, an optimizer ... got type",
    ),
    "save-twice": (
        lambda m: nb.save(m.folder / "x", m.params, m.params),
        TypeError,
        "nbopt.save got the same object twice",
    ),
    "save-same-keys": (
        lambda m: nb.save(m.folder / "x", m.params, m.other),
        CheckpointError,
        "both need the key 'w': hand one in by keyword",
    ),
    "save-empty-path": (
        lambda m: nb.save("", m.params),
        CheckpointError,
        "the path of a checkpoint is empty",
    ),
    "save-zero-byte": (
        lambda m: nb.save("a\0b", m.params),
        CheckpointError,
        "no file can be named 'a\\x00b'",
    ),
    "save-folder": (lambda m: nb.save(m.folder, m.params), IsADirectoryError, "Is a directory"),
    "save-no-folder": (
        lambda m: nb.save(m.folder / "none" / "x", m.params),
        FileNotFoundError,
        "no such folder",
    ),
    "save-state-list": (
        lambda m: nb.save(m.folder / "x", Forgetful()),
        TypeError,
        "state_dict() of Forgetful must return a dictionary with text for keys",
    ),
    "save-state-object": (
        lambda m: nb.save(m.folder / "x", Odd()),
        TypeError,
        "'what' cannot be stored: it holds object",
    ),
    "restore-swapped": (
        lambda m: nb.restore(m.params, m.path),
        TypeError,
        "nbopt.restore got a path among the objects; it comes first: write nbopt.restore(path, params, opt)",
    ),
    "restore-absent": (lambda m: nb.restore(m.folder / "none", m.params), FileNotFoundError, "No such file"),
    "restore-folder": (lambda m: nb.restore(m.folder, m.params), IsADirectoryError, "Is a directory"),
    "restore-empty": (lambda m: nb.restore(write(m, b""), m.params), CheckpointError, "other.safetensors"),
    "restore-text": (
        lambda m: nb.restore(write(m, b"hello, this is no checkpoint"), m.params),
        CheckpointError,
        "other.safetensors",
    ),
    "restore-missing-kind": (
        restored(lambda m: m.average),
        CheckpointError,
        "nothing was changed: ... nothing for ModelAverage ... what it has: ParameterBuffer, Optimizer",
    ),
    "restore-keyword": (
        restored(run=lambda m: m.params),
        CheckpointError,
        "it has nothing for ParameterBuffer 'run'",
    ),
    "restore-other-shape": (
        restored(
            lambda m: nb.ParameterBuffer.from_arrays(
                {"w": np.ones(2, np.float32), "b": np.ones(3, np.float32)}
            )
        ),
        CheckpointError,
        "ParameterBuffer: w: got float32 of shape (2, 3), need float32 of shape (2,)",
    ),
    "restore-other-dtype": (
        restored(lambda m: nb.ParameterBuffer.from_arrays({"w": np.ones((2, 3)), "b": np.ones(3)})),
        CheckpointError,
        "ParameterBuffer: w: got float32 of shape (2, 3), need float64",
    ),
    "restore-other-names": (
        restored(lambda m: nb.ParameterBuffer.from_arrays({"v": np.ones(3, np.float32)})),
        CheckpointError,
        "missing: v ... unexpected: w, b",
    ),
    "restore-normed": (restored(lambda m: m.normed), CheckpointError, "w was saved without weight norm"),
    "restore-other-rule": (
        restored(lambda m: nb.optimizer.SGD(0.1, m.params)),
        CheckpointError,
        "it belongs to the rule 'momentum', not 'sgd'",
    ),
    "restore-scheduled": (
        restored(lambda m: m.scheduled),
        CheckpointError,
        "Optimizer: it was saved without a schedule, and this Momentum follows a StepDecay: call set_lr_sch",
    ),
    "load-buffer": (
        lambda m: nb.load(m.params),
        TypeError,
        "path must be a string or a path, got ParameterBuffer",
    ),
    "load-two": (
        lambda m: nb.load(m.path, m.params),
        TypeError,
        "load: too many positional arguments; write load(path)",
    ),
    "load-text": (lambda m: nb.load(write(m, b"x" * 40)), CheckpointError, "other.safetensors"),
    "export-swapped": (
        lambda m: nb.export(m.params, "x"),
        TypeError,
        "nbopt.export takes a ParameterBuffer, got str; the path comes first",
    ),
    "export-optimizer": (
        lambda m: nb.export(m.folder / "x", m.opt),
        TypeError,
        "nbopt.export takes a ParameterBuffer, got Momentum",
    ),
    "export-no-match": (
        lambda m: nb.export(m.folder / "x", m.params, "v*"),
        ParameterError,
        "pattern 'v*' matches no parameter; there are: w, b",
    ),
    "export-average": (
        lambda m: nb.export(m.folder / "x", m.params, average=3),
        TypeError,
        "average must have apply(), got int",
    ),
    "export-other-average": (
        lambda m: nb.export(m.folder / "x", m.other, average=m.average),
        ParameterError,
        "this ModelAverage averages parameters of another buffer",
    ),
    "export-misspelt": (
        lambda m: nb.export(m.folder / "x", m.params, name="w"),
        TypeError,
        "export got an unknown argument 'name'; did you mean 'names'?",
    ),
}

TABLE = {**STATES, **FILES}
