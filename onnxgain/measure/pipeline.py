"""Runs work ahead in a few threads, so that photographs are read and models run while spectra are analysed."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from concurrent.futures import Executor, Future

Item = TypeVar("Item")
Result = TypeVar("Result")


def ahead(
    function: Callable[[Item], Result], items: Iterable[Item], *, workers: int = 1, limit: int = 1
) -> Generator[Result]:
    """Yield `function(item)` for each item, in order, computed ahead in threads.

    `items` is iterated in the calling thread. An error from `items` or `function` is raised in order, after the results
    of all earlier items. Closing the generator waits for running calls and cancels the others.

    Args:
        function: called in at most `workers` threads at a time.
        limit: how many further results are kept or computed ahead.

    Raises:
        Exception: what `function` or `items` raise.
    """
    from concurrent.futures import ThreadPoolExecutor

    pending: deque[Future[Result]] = deque()
    source = iter(items)
    more, failure = True, None
    executor = ThreadPoolExecutor(workers, "onnxgain-ahead")
    try:
        while True:
            while more and len(pending) <= limit:
                try:
                    item = next(source)
                except StopIteration:
                    more = False
                except Exception as error:
                    more, failure = False, error
                else:
                    pending.append(_submitted(executor, function, item))
            if not pending:
                break
            yield pending.popleft().result()
        if failure is not None:
            raise failure
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def _submitted(executor: Executor, function: Callable[[Item], Result], item: Item) -> Future[Result]:
    """Run a call in the executor, or at once in this thread where memory does not allow another one."""
    from concurrent.futures import Future

    try:
        return executor.submit(function, item)
    except (RuntimeError, MemoryError):
        done: Future[Result] = Future()
        try:
            done.set_result(function(item))
        except Exception as error:
            done.set_exception(error)
        return done
