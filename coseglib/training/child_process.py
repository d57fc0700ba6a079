"""A function in a process of its own, and the memory that it took there.

The process is made anew from one that has imported the library and done nothing else, so that no training sees what
another one left behind. Its figure is its largest resident set (`ru_maxrss`), libraries and photographs among it;
`before`, taken just before the function starts, is what the process held by then. On a GPU it is the most that torch
had allocated there, and nothing before.
"""

import logging
import multiprocessing
import os
import resource
import sys
import threading
from collections.abc import Callable

import torch

from coseglib.core.errors import CosegError

POLL_SECONDS = 15.0  # seconds between two looks at a log that is being written


def _resident() -> int:
    """The largest resident set of this process so far, in bytes."""
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB on Linux, bytes on macOS
    return size if sys.platform == "darwin" else size * 1024


def _end_with_parent() -> None:
    """A training whose notebook is gone would go on for hours, beside the next one."""
    multiprocessing.parent_process().join()
    os._exit(1)


def _child(sender, threads: int, function: Callable, arguments: tuple) -> None:
    """What the process of `in_a_process` does: call, measure, send."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # the precision stands in the tables
    torch.set_num_threads(threads)
    memory = {"of": "process", "before": _resident()}
    try:
        result = function(*arguments)
    except CosegError as error:
        result = error
    memory["peak"] = _resident()
    if torch.cuda.is_initialized():
        memory = {"of": torch.cuda.get_device_name(), "before": 0, "peak": torch.cuda.max_memory_allocated()}
    sender.send((result, memory))


def in_a_process(function: Callable, *arguments, while_it_runs: Callable[[], None] = lambda: None) -> tuple:
    """function(*arguments) in a process of its own -> its result, and {"of", "before", "peak"}, memory in bytes.

    Function, arguments and result are sent by pickling. The process ends when this one does, or is interrupted.
    Raises the function's CosegError, and CosegError where the process ends without an answer (killed, out of memory).
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["coseglib.training.runs"])  # imports once, then a process takes milliseconds
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(sender, torch.get_num_threads(), function, arguments))
    process.start()
    sender.close()
    try:
        while not receiver.poll(POLL_SECONDS):
            while_it_runs()
        result, memory = receiver.recv()
    except EOFError as error:
        process.join()
        raise CosegError(f"the training's process ended with {process.exitcode}; call again to go on") from error
    except BaseException:  # an interruption, above all
        process.terminate()
        raise
    finally:
        receiver.close()
        process.join()
    if isinstance(result, CosegError):
        raise result
    return result, memory
