"""The demonstration: a small network, written out in NumPy, learns to read handwritten digits.

`python -m nbopt demo` runs it; `run` and `compare` are the same from Python. The network's gradients are
written by hand into the views of one `ParameterBuffer`; nbopt does what it is for: names with a policy each
and one reproducible step. scikit-learn (which carries the 1,797 images), tqdm and matplotlib come
with the extra `demo`, threadpoolctl with scikit-learn; they are imported only when needed.
"""

from nbopt.demo.digits import Digits
from nbopt.demo.network import Network
from nbopt.demo.pictures import draw, draw_comparison, picture_path
from nbopt.demo.progress import saved_setting
from nbopt.demo.training import Comparison, DemoResult, History, compare, run

__all__ = [
    "Comparison",
    "DemoResult",
    "Digits",
    "History",
    "Network",
    "compare",
    "draw",
    "draw_comparison",
    "picture_path",
    "run",
    "saved_setting",
]
