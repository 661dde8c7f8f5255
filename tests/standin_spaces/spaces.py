"""A stand-in for Hugging Face's package `spaces` on ZeroGPU: a decorated function runs in a forked process, so that
arguments and results are copies and nothing else comes back.

`ZERO_GPU_LOG` names a file that gets a line per call; a call waits while there is a file of that name with `.held`.
"""

from __future__ import annotations

import multiprocessing
import os
import time
import warnings
from collections.abc import Callable
from typing import Any


def GPU(function: Callable[..., Any], duration: int = 60) -> Callable[..., Any]:  # its name there
    forked = multiprocessing.get_context("fork")

    def call(*arguments: Any) -> Any:
        receiver, sender = forked.Pipe(duplex=False)

        def work() -> None:
            while os.path.exists(f"{os.environ['ZERO_GPU_LOG']}.held"):
                time.sleep(0.02)
            try:
                answer = (True, function(*arguments))
            except Exception as error:
                answer = (False, error)
            sender.send(answer)
            with open(os.environ["ZERO_GPU_LOG"], "a") as log:
                log.write(f"{os.getpid()}\n")

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12's about forks of processes with threads
            process = forked.Process(target=work, daemon=True)
            process.start()
        sender.close()
        good, value = receiver.recv()
        process.join()
        if not good:
            raise value
        return value

    return call
