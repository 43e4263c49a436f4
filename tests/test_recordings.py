"""nbopt against trajectories recorded from Paddle 3.3.1, step by step, and against the oracle.

The oracle itself is held to the same recordings first, so that it may speak where nbopt differs on
purpose: there nbopt must equal the oracle and must not equal the recording.
"""

from collections import Counter

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from tests import oracle, recordings
from tests.recordings import GOLDEN, load, play_nbopt, play_oracle

# What nbopt reproduces.
SAME = [
    *("mom_plain_none_noclip", "mom_plain_none_cvalue", "mom_plain_none_cnorm"),
    *("mom_plain_l1_noclip", "mom_plain_l1_cvalue", "mom_plain_l1_cnorm", "mom_plain_l1_cglobal"),
    *("mom_plain_l2_noclip", "mom_plain_l2_cvalue", "mom_plain_l2_cglobal"),
    *("mom_nest_none_noclip", "mom_nest_none_cvalue", "mom_nest_none_cnorm"),
    *("mom_nest_none_cglobal", "mom_nest_l1_cnorm", "mom_nest_l1_cglobal"),
    *("mom_nest_l2_noclip", "mom_nest_l2_cvalue", "mom_nest_l2_cnorm", "mom_nest_l2_cglobal"),
    *("momentum_zero", "multi_tensor", "clip_value_asym", "set_lr_mid"),
    *("attr_everything", "attr_not_trainable", "attr_reg_precedence", "attr_reg_precedence_l1opt"),
    *("attr_need_clip_value", "attr_need_clip_norm", "attr_need_clip_global"),
    *("groups_lr_wd", "groups_l1_wd", "groups_clip_each", "groups_momentum_overrides"),
    *("sgd_none_cglobal", "sgd_l1_cglobal", "sgd_l2_cglobal"),
    *("adam_none", "adam_l2_cglobal", "adam_attr", "adam_amsgrad", "adam_bigeps_betas"),
    *("adamw_groups", "adamw_wd_nodecay_bias"),
]

# Paddle rounds momentum and decay to float32 here; nbopt does not (D6).
FLOAT64 = ["f64_l2"]

# Here Paddle rounds nothing.
FLOAT64_ADAM = "adam_f64"

# The recorded base rate of every step is set by hand.
SCHEDULES = [
    *("sched_noam", "sched_piecewise", "sched_naturalexp", "sched_inversetime", "sched_poly"),
    *("sched_poly_cycle", "sched_warmup", "sched_warmup_exp", "sched_exp", "sched_multistep"),
    *("sched_step", "sched_lambda", "sched_plateau", "sched_cosine", "sched_multiplicative"),
    *("sched_onecycle", "sched_onecycle3", "sched_cyclic", "sched_cyclic_tri2"),
    *("sched_cyclic_exp", "sched_linear", "sched_cosine_wr1"),
]

WEIGHT_NORM = ["wn_static_dim0", "wn_static_dim1"]

# Where nbopt differs on purpose (DESIGN section 7).
DIFFERENT = [
    "groups_drop_param_attr",  # D2: a group scales the rate of a parameter, keeps its regularizer
    "groups_l2_plus_opt_l1_adds",  # D2: the decay of a group replaces that of the optimizer
    "groups_global_clip_is_per_group",  # D3: one norm over all groups that inherit a clip object
    "rescale_grad_cpu_ignored",  # D5: it multiplies the gradient
]

CLIPS = ["clip_tables"]

# (family, optimizer) of what is played elsewhere.
ELSEWHERE = {
    ("initializers", None): "test_initializer.py",
    ("weight_norm", "Momentum"): "compat/test_paddle.py",
    ("jittor_weight_norm", None): "compat/test_jittor.py",
    ("model_average", "Momentum"): "averaging/test_window.py",
    ("lr_tables", None): "optimizer/test_lr_values.py",
}


def assert_follows(trajectory, rec, rtol=1e-5, atol=1e-6):
    """Every recorded value and accumulator, after every step."""
    steps = 0
    for t, got in enumerate(trajectory):
        for key, expected in rec.expected(t).items():
            assert_allclose(got[key], expected, rtol, atol, err_msg=f"{key} after step {t}")
        steps += 1
    assert steps == rec.meta["steps"]


def assert_agree(trajectory, reference, rtol=1e-5, atol=1e-6):
    """Every value and accumulator of the reference, after every step."""
    for t, (got, expected) in enumerate(zip(trajectory, reference, strict=True)):
        for key in expected:
            assert_allclose(got[key], expected[key], rtol, atol, err_msg=f"{key} after step {t}")


def assert_departs(trajectory, rec):
    """Something ends far from the recording: by more than any tolerance here."""
    *_, got = trajectory
    expected = rec.expected(rec.meta["steps"] - 1)
    assert any(np.max(np.abs(got[key] - expected[key])) > 0.01 for key in expected)


def in_float32(rec):
    """The same recording with the two numbers that Paddle rounds to float32, rounded."""
    rounded = {key: float(np.float32(rec.opt[key])) for key in ("momentum", "weight_decay")}
    return rec.with_opt(**rounded)


# --- completeness ---------------------------------------------------------------------------------


def test_every_recording_is_played_once():
    played = [*SAME, *FLOAT64, FLOAT64_ADAM, *SCHEDULES, *WEIGHT_NORM, *DIFFERENT, *CLIPS]
    found, others = [], set()
    for path in GOLDEN.glob("*.npz"):
        meta = load(path.stem).meta
        assert meta["name"] == path.stem
        kind = meta["family"], meta.get("opt", {}).get("type")
        if kind in ELSEWHERE:
            others.add(kind)
        else:
            found.append(path.stem)
    assert Counter(played) == Counter(found)
    assert others == ELSEWHERE.keys()


# --- the oracle is right --------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*SAME, *SCHEDULES, *WEIGHT_NORM])
def test_oracle_replays_recording(name):
    rec = load(name)
    assert_follows(play_oracle(rec), rec)


@pytest.mark.parametrize("name", DIFFERENT)
def test_oracle_replays_recording_read_as_paddle_does(name):
    rec = load(name)
    assert_follows(play_oracle(rec, paddle=True), rec)
    assert_departs(play_oracle(rec), rec)


@pytest.mark.parametrize("name", FLOAT64)
def test_oracle_replays_float64_recording(name):
    rec = load(name)
    assert_follows(play_oracle(rec), rec, rtol=1e-6)
    assert_follows(play_oracle(in_float32(rec)), rec, rtol=0, atol=1e-15)


# --- nbopt ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*SAME, *SCHEDULES])
def test_recording(name):
    rec = load(name)
    assert_follows(play_nbopt(rec), rec)


@pytest.mark.parametrize("name", FLOAT64)
def test_float64_recording(name):
    rec = load(name)
    assert_follows(play_nbopt(rec), rec, rtol=1e-6)
    assert_follows(play_nbopt(in_float32(rec)), rec, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("play", [play_oracle, play_nbopt])
def test_float64_recording_of_adam(play):
    rec = load(FLOAT64_ADAM)
    assert_follows(play(rec), rec, rtol=1e-14, atol=1e-14)


def test_adam_counts_its_steps():
    """Paddle keeps the powers of the betas; they are one step ahead of the count."""
    rec = load("adam_bigeps_betas")
    for t, got in enumerate(play_nbopt(rec)):
        for beta in ("beta1", "beta2"):
            power = rec.arrays[f"state::{beta}_pow_acc::w"][t]
            assert_allclose(rec.opt[beta] ** (got["w.step"] + 1), power, rtol=1e-5)


@pytest.mark.parametrize("name", DIFFERENT)
def test_recording_that_we_differ_from(name):
    rec = load(name)
    assert_agree(play_nbopt(rec), play_oracle(rec))
    assert_departs(play_nbopt(rec), rec)


def test_one_clip_object_per_group_is_one_norm_per_group():
    rec = load("groups_global_clip_is_per_group")
    assert_follows(play_nbopt(rec, own_clips=True), rec)


def test_an_unrescaled_gradient_follows_the_recording_of_an_ignored_rescale():
    rec = load("rescale_grad_cpu_ignored")
    assert_follows(play_nbopt(rec.with_opt(rescale_grad=1.0)), rec)


@pytest.mark.parametrize("decay", [None, 0.05, ["L1", 0.02]], ids=["none", "l2", "l1"])
@pytest.mark.parametrize("clip", [None, {"type": "global", "clip_norm": 2.0}], ids=["-", "global"])
def test_absent_gradient(clip, decay):
    rec = load("mom_nest_l2_cglobal").with_opt(grad_clip=clip, weight_decay=decay)
    rec = rec.with_absent("w", 0, 1, 5).with_absent("b", 4, 5, 9).with_absent("k", 5)
    assert_agree(play_nbopt(rec), play_oracle(rec))


def test_frozen_parameter_keeps_its_bits():
    rec = load("attr_not_trainable")
    for got in play_nbopt(rec):
        assert_array_equal(got["k"], rec.initial["k"], strict=True)


# --- weight norm ----------------------------------------------------------------------------------

CLIP_SPECS = {
    "none": None,
    "value": {"type": "value", "max": 0.5, "min": -0.2},
    "norm": {"type": "norm", "clip_norm": 0.7},
    "global": {"type": "global", "clip_norm": 0.9},
}


@pytest.mark.parametrize("name", WEIGHT_NORM)
def test_weight_norm_recording(name):
    rec = load(name)
    params, _ = recordings.build_nbopt(rec)
    assert_allclose(params["w_g"].numpy(), rec.arrays["g_init"], rtol=1e-6)
    assert_array_equal(params["w_v"].numpy(), rec.arrays["W"])
    assert_allclose(params["w"].numpy(), rec.arrays["w_forward"][0], rtol=1e-6)
    assert_follows(play_nbopt(rec), rec)


@pytest.mark.parametrize("clip", CLIP_SPECS.values(), ids=CLIP_SPECS)
@pytest.mark.parametrize("dim", [0, 1, None])
def test_clips_act_on_dv_and_dg(dim, clip):
    rec = load("wn_static_dim0").with_opt(grad_clip=clip, use_nesterov=True)
    rec.meta["dim"] = dim
    assert_agree(play_nbopt(rec), play_oracle(rec))


# --- clips on plain arrays ------------------------------------------------------------------------

TABLE = load("clip_tables")
KINDS = ["finite", "nan", "inf", "ninf", "huge", "zero"]
MODES = {"all": {}, "skip1": {"1": False}}  # need_clip

# Paddle lets a NaN norm pass when it may skip; its float32 norm of 1e20 overflows (D10, D11).
DIFFERENT_CELLS = {("nan", "global_skip")} | {
    ("huge", clip) for clip in ("norm", "norm_big", "global", "global_big", "global_skip")
}


def cell(kind, clip, mode):
    """What a cell of the table holds: the input and Paddle's answer."""
    grads = {str(i): TABLE.arrays[f"in::{kind}::{i}"] for i in range(3)}
    return grads, {i: TABLE.arrays[f"out::{kind}::{clip}::{mode}::{i}"] for i in grads}


def assert_same_arrays(got, expected, rtol):
    assert list(got) == list(expected)
    for name in expected:
        assert got[name].dtype == expected[name].dtype
        assert_allclose(got[name], expected[name], rtol, atol=0, err_msg=f"array {name}")


def assert_cell(got, kind, clip, mode):
    """Equal to the recording, NaN for NaN, or clearly different where it has to be."""
    _, recorded = cell(kind, clip, mode)
    if (kind, clip) in DIFFERENT_CELLS:
        same = [np.allclose(got[i], recorded[i], 1e-3, 1e-3, equal_nan=True) for i in got]
        assert not all(same)
    else:
        assert_same_arrays(got, recorded, rtol=1e-5)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("clip", TABLE.meta["specs"])
@pytest.mark.parametrize("kind", KINDS)
def test_oracle_clips_like_the_table(kind, clip, mode):
    grads, _ = cell(kind, clip, mode)
    spec = TABLE.meta["specs"][clip]
    got = oracle.clip_grads(recordings.oracle_clip(spec), grads, MODES[mode])
    assert_cell(got, kind, clip, mode)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("clip", TABLE.meta["specs"])
@pytest.mark.parametrize("kind", KINDS)
def test_clip_table(kind, clip, mode):
    grads, _ = cell(kind, clip, mode)
    before = {name: grad.copy() for name, grad in grads.items()}
    spec = TABLE.meta["specs"][clip]
    got = recordings.nbopt_clip(spec)(grads, need_clip=MODES[mode])

    expected = oracle.clip_grads(recordings.oracle_clip(spec), grads, MODES[mode])
    assert_same_arrays(got, expected, rtol=1e-6)
    assert_cell(got, kind, clip, mode)
    for name, grad in grads.items():
        assert_array_equal(grad, before[name])
        assert not np.shares_memory(got[name], grad)


def test_clip_table_is_whole():
    cells = {tuple(key.split("::")[1:4]) for key in TABLE.arrays if key.startswith("out::")}
    specs = TABLE.meta["specs"]
    assert cells == {(kind, clip, mode) for kind in KINDS for clip in specs for mode in MODES}
