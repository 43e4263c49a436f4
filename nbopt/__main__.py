"""The command line: `python -m nbopt COMMAND`.

A command is one function here: its name is what the user types, its docstring is the help, it
declares its options and returns the function that does the work. Exit status: 0 done, 1 failed,
2 a mistake in what was asked for (one line on standard error), 130 interrupted.
"""

from __future__ import annotations

import argparse
import inspect
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import NoReturn

import nbopt as nb
from nbopt.errors import HyperparameterError, NboptError

__all__ = ["main"]

Work = Callable[[argparse.Namespace], int]
Command = Callable[[argparse.ArgumentParser], Work]

COMMANDS: list[Command] = []

WHY_ALIKE = (
    "The learning rate fits the plain weights, so weight norm need not win here. It does where the rate is\n"
    "too high: see 'Weight normalization at a high learning rate' in the gallery of the documentation."
)


def _command(function: Command) -> Command:
    COMMANDS.append(function)
    return function


@_command
def demo(parser: argparse.ArgumentParser) -> Work:
    """Train a small network on real handwritten digits and draw how it went.

    The 1,797 images come with scikit-learn; nothing is downloaded. A network of two hidden layers,
    its gradients written by hand in NumPy, learns from four fifths of them: nesterov momentum, L2
    decay and a global-norm clip on the weights; biases are neither decayed nor clipped and learn at
    twice the rate. Under --weight-norm the weights of the hidden layers are composed of direction and
    length. The last lines on standard output are the accuracy on the held-out fifth, the
    fingerprint of the trained parameters and the path of the picture. The same options give the
    same fingerprint on every run, for any number of Numba threads. --compare trains without and with
    weight norm on the same data from the same start, prints both results and draws both curves.

    The first run compiles the kernels, which takes some seconds, with weight norm longer; later ones find
    them on disk.
    Needs the extra "demo": pip install "nbopt[demo]".
    """
    add = parser.add_argument
    add("--epochs", type=int, default=40, metavar="N", help="passes over the images (default: 40)")
    add("--batch-size", type=int, default=32, metavar="N", help="images per step (default: 32)")
    add("--seed", type=int, default=0, metavar="N", help="of parameters and order (default: 0)")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--weight-norm", action="store_true", help="weight norm on the hidden layers")
    kind.add_argument("--compare", action="store_true", help="train without and with it, side by side")
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--output",
        default="nbopt-demo.png",
        metavar="FILE",
        help="the picture, a .png (default: nbopt-demo.png)",
    )
    where.add_argument("--no-picture", action="store_true", help="draw nothing")
    add("--quiet", action="store_true", help="only the last lines: no summary, no progress bar")

    def work(args: argparse.Namespace) -> int:
        from nbopt.demo import compare, draw, draw_comparison, picture_path, run

        path = None if args.no_picture else picture_path(args.output)
        setting = (args.epochs, args.batch_size, args.seed)
        if args.compare:
            both = compare(*setting, quiet=args.quiet)
            print(both)
            if not args.quiet:
                print(WHY_ALIKE)
            paint = partial(draw_comparison, both)
        else:
            result = run(*setting, weight_norm=args.weight_norm, quiet=args.quiet)
            print(f"test accuracy: {result.accuracy:.4f}")
            print(f"fingerprint: {result.fingerprint}")
            paint = partial(draw, result)
        if path is not None:
            paint(path)
            print(f"picture: {path}")
        return 0

    return work


class _Parser(argparse.ArgumentParser):
    """A parser whose complaint is one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m nbopt",
        description="Named parameters with a policy each, moved in one reproducible step.",
        epilog="python -m nbopt COMMAND --help tells the options of a command. Exit status: "
        "0 done, 1 failed, 2 a mistake in what was asked for, 130 interrupted.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"nbopt {nb.__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in COMMANDS:
        text = inspect.getdoc(command) or ""
        child = commands.add_parser(
            command.__name__,
            help=text.partition("\n")[0],
            description=text,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        child.set_defaults(work=command(child), prog=child.prog)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status.

    Parameters
    ----------
    argv : sequence of str, optional
        The arguments, `sys.argv[1:]` if left out.

    Returns
    -------
    int
    """
    args = _parser().parse_args(argv)
    try:
        status: int = args.work(args)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return _complain(args.prog, "interrupted", 130)
    except BrokenPipeError:  # the reader of our output has gone: say nothing, not even at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (HyperparameterError, OSError) as error:
        return _complain(args.prog, error, 2)
    except NboptError as error:  # a missing optional package can be mended by who asked
        return _complain(args.prog, error, 2 if isinstance(error, ImportError) else 1)
    return status


def _complain(prog: str, error: object, status: int) -> int:
    text = " ".join(str(error).split())
    print(f"{prog}: error: {text}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
