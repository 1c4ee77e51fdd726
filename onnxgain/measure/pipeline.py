"""Work done ahead of its use in a few threads: photographs are read, and models run, while spectra are analysed."""

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
    """Yield `function` of each item, in their order, computed in threads before it is asked for.

    `items` is iterated in the thread that asks. What fails, here or there, is raised in its turn: after the results of
    all earlier items. Closing the iterator waits for the calls that are running and drops the others.

    Args:
        function: called in at most `workers` threads at a time.
        limit: how many results are kept or computed beside the one asked for.

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
    """A call in one of the threads; at once, in this one, where memory is too limited for another thread."""
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
