"""Lets the threads of Numba's simulator take turns, from barrier to barrier, in an order drawn at random.

The simulator lets all threads of a block run at once and polls whether they wait, which is slow and hides
most missing barriers. In turns, what a thread reads too early is old as often as not.
"""

import random
import threading

import numpy as np
from numba.cuda.simulator import kernel

DRAW = random.Random(0)


class Turn(kernel.BlockThread):
    """A thread that runs only in its turn."""

    def __init__(self, *given):
        super().__init__(*given)
        self.turn, self.pause, self.done = threading.Lock(), threading.Lock(), False
        self.turn.acquire()  # each is released by one thread and acquired by the other
        self.pause.acquire()

    def run(self):
        self.turn.acquire()
        with np.errstate(all="ignore"):  # a GPU does not warn either
            super().run()  # keeps an exception
        self.done = True
        self.pause.release()

    def syncthreads(self):
        self.pause.release()
        self.turn.acquire()
        if self.abort:
            raise RuntimeError("another thread of the block failed")

    def take(self):
        """Run to the next barrier, or the end."""
        self.turn.release()
        self.pause.acquire()


class Block(kernel.BlockManager):
    """A block whose threads take turns."""

    def run(self, grid_point, *args):
        def target():
            self._f(*args)

        places = np.ndindex(*self._block_dim)
        live = [Turn(target, self, grid_point, place, self._debug) for place in places]
        for thread in live:
            thread.start()
        failed = None
        while live:
            DRAW.shuffle(live)
            for thread in live:
                thread.abort = failed is not None
                thread.take()
                failed = failed or thread.exception
            live = [thread for thread in live if not thread.done]
        if failed:
            raise failed[0].with_traceback(failed[1])


def install(monkeypatch):
    """Let threads take turns until the end of a test."""
    monkeypatch.setattr(kernel, "BlockThread", Turn)
    monkeypatch.setattr(kernel, "BlockManager", Block)
