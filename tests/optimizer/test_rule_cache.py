"""The rule of a user in its file: an edited one compiles again, an unchanged one comes from disk."""

import json
import os
import subprocess
import sys

RULE = """
import nbopt as nb
from constants import SCALE

def stretched(x):
    return SCALE * x

@nb.rule
def rule(param, velocity, grad, lr, mu=0.5):
    velocity = mu * velocity + stretched(grad)
    return param - lr * velocity, velocity
"""
CONSTANTS = "SCALE = 2.0\n"
PROGRAM = """
import json, warnings
from numba.core import event
import nbopt as nb
from rule import rule

warnings.simplefilter("error")
params = nb.ParameterBuffer.from_arrays({"w": [8.0]})
with event.install_recorder("numba:compile") as compilations:
    opt = nb.Optimizer(rule, 0.5, params)
    for _ in range(2):
        opt.step({"w": [1.0]})
print(json.dumps([params["w"].value.tolist(), sum(e.is_start for _, e in compilations.buffer)]))
"""


def run(folder):
    """Run the program in a process of its own; return the parameter, and whether anything was compiled."""
    cache = str(folder / "cache")
    environment = {**os.environ, "NUMBA_CACHE_DIR": cache, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "program.py"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    (value,), compiled = json.loads(done.stdout)
    return value, compiled > 0


def test_an_edited_rule_compiles_again_and_an_unchanged_one_is_loaded(tmp_path):
    """Numba itself would run the old machine code after an edit of what a kernel calls or names."""
    files = {"rule.py": RULE, "constants.py": CONSTANTS, "program.py": PROGRAM}
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    first = run(tmp_path)
    assert first == (8.0 - 0.5 * 2.0 - 0.5 * 3.0, True)
    assert run(tmp_path) == (first[0], False)

    (tmp_path / "constants.py").write_text("SCALE = 4.0\n", encoding="utf-8")
    assert run(tmp_path) == (8.0 - 0.5 * 4.0 - 0.5 * 6.0, True)

    edited = RULE.replace("mu * velocity + stretched(grad)", "mu * velocity - stretched(grad)")
    (tmp_path / "rule.py").write_text(edited, encoding="utf-8")
    assert run(tmp_path) == (8.0 + 0.5 * 4.0 + 0.5 * 6.0, True)
    assert run(tmp_path) == (8.0 + 0.5 * 4.0 + 0.5 * 6.0, False)

    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    (tmp_path / "rule.py").write_text("# A comment changes nothing.\n" + RULE, encoding="utf-8")
    assert run(tmp_path) == (first[0], False)
