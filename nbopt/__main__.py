"""The command line: `python -m nbopt COMMAND`.

A command is one function here: its name is what the user types, its docstring is the help, it
declares its options and returns the function that does the work. Exit status: 0 done, 1 failed,
2 a mistake in what was asked for (one line on standard error), 130 interrupted.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from inspect import getdoc
from typing import NoReturn

import nbopt as nb
from nbopt.errors import CheckpointError, HyperparameterError, NboptError

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

    --save keeps the run in a file, written anew after every epoch: after Ctrl-C, or a kill, --resume goes on
    from there, keeps saving, and ends with the fingerprint of a run that never stopped.

    The first run compiles the kernels, which takes some seconds, with weight norm longer; later ones find
    them on disk.
    Needs the extra "demo": pip install "nbopt[demo]".
    """
    add = parser.add_argument
    add("--epochs", type=int, metavar="N", help="passes over the images (default: 40)")
    add("--batch-size", type=int, metavar="N", help="images per step (default: 32)")
    add("--seed", type=int, metavar="N", help="of parameters and order (default: 0)")
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
    file = parser.add_mutually_exclusive_group()
    file.add_argument("--save", metavar="FILE", help="keep the run in a file, whole at every moment")
    file.add_argument("--resume", metavar="FILE", help="go on with the run in a file, with its options")
    add("--quiet", action="store_true", help="only the last lines: no summary, no progress bar")

    def work(args: argparse.Namespace) -> int:
        from nbopt.demo import compare, draw, draw_comparison, picture_path, run, saved_setting

        path = None if args.no_picture else picture_path(args.output)
        file = args.save if args.resume is None else args.resume
        if args.compare and file is not None:
            raise HyperparameterError("--save and --resume are of one run, and cannot go with --compare")
        options = ("epochs", "batch_size", "seed")
        setting = {name: getattr(args, name) for name in options if getattr(args, name) is not None}
        if args.weight_norm:
            setting["weight_norm"] = True
        if args.resume is not None:
            setting = saved_setting(args.resume, setting)
        if args.compare:
            both = compare(**setting, quiet=args.quiet)
            print(both)
            if not args.quiet:
                print(WHY_ALIKE)
            paint = partial(draw_comparison, both)
        else:
            try:
                result = run(**setting, quiet=args.quiet, save=file, resume=args.resume)
            except KeyboardInterrupt:
                told = f"interrupted; go on with --resume {file}" if file else ""
                raise KeyboardInterrupt(told) from None
            print(f"test accuracy: {result.accuracy:.4f}")
            print(f"fingerprint: {result.fingerprint}")
            paint = partial(draw, result)
        if path is not None:
            paint(path)
            print(f"picture: {path}")
        return 0

    return work


@_command
def info(parser: argparse.ArgumentParser) -> Work:
    """Say what nbopt found on this machine, and what would make it faster.

    Versions of the packages that it stands on; the processor that steps are compiled for; the threads of a
    large model; the GPUs that CUDA finds, or what is missing; where compiled steps are kept, and how many.
    Below, advice with the line to type, if there is any. Nothing is compiled or changed. Show it with a
    report of a bug.
    """
    parser.add_argument("--json", action="store_true", help="for programs: a JSON object")

    def work(args: argparse.Namespace) -> int:
        nb.show_config("json" if args.json else "text")
        return 0

    return work


@_command
def warmup(parser: argparse.ArgumentParser) -> Work:
    """Compile the kernels of optimizers ahead of time and keep them on disk.

    A step is compiled when it is first taken, once per machine: later processes load it. This does it
    now, for an image of a container, say, or before many jobs start at once. What is there already is
    loaded, not compiled again. It keeps the kernels where a program of this user would look for them:
    beside the package, else in the user's folder for caches, or where NUMBA_CACHE_DIR says.

    Without options it covers Momentum, SGD, Adam and AdamW over float32 without weight norm, each for
    one thread and, as models of 60,000 elements and more use them, for several: 8 kernels, which take
    about a minute to compile. --all makes 56 and may take a quarter of an hour. Rates, limits, groups and
    sizes need no kernels of their own, nor does jit_step(). For a rule of your own call compile() of its
    optimizer.

    One line per kernel says whether it was loaded or compiled, and how long that took; the last one says
    where they are kept.
    """
    from nbopt.kernels.rules import __all__ as every_rule

    default = ("momentum", "sgd", "adam", "adamw")
    add = parser.add_argument
    add("--rule", nargs="+", choices=every_rule, metavar="NAME", help=f"of {', '.join(every_rule)}")
    add(
        "--dtype", nargs="+", choices=("float32", "float64"), metavar="NAME", help="float32, float64, or both"
    )
    add("--weight-norm", action="store_true", help="also for models with weight norm")
    add("--all", action="store_true", help="every rule and dtype, without and with weight norm")

    def work(args: argparse.Namespace) -> int:
        from nbopt.warmup import warm_up

        if args.all and (args.rule or args.dtype or args.weight_norm):
            raise HyperparameterError("--all leaves nothing to choose: drop it, or the other options")
        rules = every_rule if args.all else args.rule or default
        dtypes = ("float32", "float64") if args.all else args.dtype or ("float32",)
        normed = (False, True) if args.all or args.weight_norm else (False,)
        for kernel in warm_up(rules, dtypes, normed):
            print(kernel, flush=True)
        print(f"cache: {kernel.folder}")
        return 0

    return work


@_command
def bench(parser: argparse.ArgumentParser) -> Work:
    """Time steps on this machine, beside what its memory allows.

    A step of momentum with a clip of the global norm and L2 decay, float32, over models from 1,000 to 25
    million elements. It moves 24 bytes per element; next to each, in turn with it, a copy of as many bytes is
    timed. A share of 0.8 is four fifths of the speed of the copy: small models are bound by the call, large
    ones by memory, where a step in place can also beat a copy. Medians of 9 rounds, with quartiles; large
    models with one thread and with all. Close what else runs.
    """
    parser.add_argument("--quick", action="store_true", help="leave out the large models, which take 0.4 GB")
    parser.add_argument("--json", action="store_true", help="for programs: a JSON object")

    def work(args: argparse.Namespace) -> int:
        from nbopt.bench import measure, table

        rows = []
        for row in measure(args.quick):
            rows.append(row)
            print(f"{row.model} done", file=sys.stderr)
        if args.json:
            print(json.dumps({"nbopt": nb.__version__, "rows": [row._asdict() for row in rows]}, indent=2))
        else:
            print(table(rows))
        return 0

    return work


@_command
def inspect(parser: argparse.ArgumentParser) -> Work:
    """List what a checkpoint holds, and verify it.

    For each object that was saved its arrays with dtype, shape and size, and its values. Every byte is
    read: an array whose digest differs is marked as damaged, and the exit status is then 1. Nothing of the
    file is run.
    """
    parser.add_argument("file", metavar="FILE", help="what nbopt.save or nbopt.export wrote")
    parser.add_argument("--json", action="store_true", help="for programs: a JSON object")

    def work(args: argparse.Namespace) -> int:
        from nbopt.checkpoint.listing import as_text, describe

        found = describe(args.file)
        print(json.dumps(found, indent=2, default=repr) if args.json else as_text(found))
        return int(any(array["damaged"] for thing in found["objects"] for array in thing["arrays"].values()))

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
        text = getdoc(command) or ""
        child = commands.add_parser(
            command.__name__,
            help=text.partition("\n")[0],
            description=text,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        child.set_defaults(work=command(child), prog=child.prog, refuse=child.error)
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
    args, unknown = _parser().parse_known_args(argv)
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")  # names may have signs that this terminal lacks
    if unknown:  # the command's help is the one to read
        args.refuse(f"unrecognized arguments: {' '.join(unknown)}")
    try:
        status: int = args.work(args)
        sys.stdout.flush()
    except KeyboardInterrupt as interrupt:
        return _complain(args.prog, str(interrupt) or "interrupted", 130)
    except BrokenPipeError:  # the reader of our output has gone: say nothing, not even at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (CheckpointError, HyperparameterError, OSError) as error:
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
