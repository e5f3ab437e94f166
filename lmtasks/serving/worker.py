"""The one thread that owns the model: jobs wait in line, and those that ask for the same are answered together.

Nothing is waited for: while a batch is answered the next one gathers, so that a lone request is answered at once and
many together.
"""

from __future__ import annotations

import itertools
import math
import threading
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from lmtasks.errors import InputError
from lmtasks.inference.continuing import Token
from lmtasks.serving.refusals import overloaded

Lengths = Callable[[list[str]], Sequence[int]]
"""Of each text, what it takes of a batch."""

Listener = Callable[[int, Token], None]
"""Hears of each token as it comes: of which text of its job, and the token."""


@dataclass(eq=False)
class Job:
    """Texts to answer.

    Args:
        texts: one or several.
        arguments: of the answers.
        alike: jobs with equal ones may share a batch; None: with no other, because what is drawn has a seed.
        listener: hears of each token.
        done: gets the list of answers, one for each text, or what went wrong.
        length: of its longest text, as the worker measures texts; None until it has.
    """

    texts: list[str]
    arguments: dict[str, Any]
    alike: Hashable = None
    listener: Listener | None = None
    done: Future[list[Any]] = field(default_factory=Future)
    wanted: bool = True
    length: int | None = None


class Worker:
    """The thread, from here until it is closed.

    Args:
        answer: jobs that are alike to the answers of all their texts, in order.
        batch_size: texts at once; a job with more has a batch to itself.
        queue: texts that may wait.
        lengths: of texts, asked in this thread.
        spread: how far apart the lengths of a batch may be.
    """

    def __init__(
        self,
        answer: Callable[[list[Job]], list[Any]],
        *,
        batch_size: int,
        queue: int,
        lengths: Lengths = lambda texts: [*map(len, texts)],
        spread: float = math.inf,
    ) -> None:
        self.answer, self.batch_size, self.queue = answer, batch_size, queue
        self.lengths, self.spread = lengths, spread
        self.batches = self.answered = 0
        self._waiting: deque[Job] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="lmtasks-worker", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Texts in line."""
        with self._changed:
            return sum(len(job.texts) for job in self._waiting)

    def submit(self, job: Job) -> Future[list[Any]]:
        """What the job will come to.

        Raises:
            Refusal: there are too many in line, or this is closed.
        """
        with self._changed:
            if self._closed:
                raise overloaded("the server is going down")
            waiting = sum(len(one.texts) for one in self._waiting)
            if waiting and waiting + len(job.texts) > self.queue:
                raise overloaded(f"there are {waiting} texts in line, and no more than {self.queue} may be")
            self._waiting.append(job)
            self._changed.notify()
        return job.done

    def close(self) -> None:
        """Answer what is in line, and end."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        while jobs := self._next():
            self._answer(jobs)

    def _next(self) -> list[Job]:
        """The first job in line with those like it that have room beside it; none when this is closed."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                new = [job for job in self._waiting if job.length is None]
                if not self._waiting:
                    return []
            self._measure(new)  # while others may come
            with self._changed:
                if jobs := self._taken():
                    return jobs

    def _measure(self, jobs: list[Job]) -> None:
        """Tell the jobs their lengths."""
        if jobs:
            lengths = iter(self.lengths([text for job in jobs for text in job.texts]))
            for job in jobs:
                job.length = max(itertools.islice(lengths, len(job.texts)))

    def _taken(self) -> list[Job]:
        """Takes the first job in line, and of those like it the nearest in length: the rest of a batch is padding.

        Who came while the others were measured is not among them yet.
        """
        self._waiting = deque(job for job in self._waiting if job.wanted and not job.done.cancelled())
        if not self._waiting:
            return []
        first, *others = self._waiting
        if first.length is None:
            return []
        chosen, room = {first}, self.batch_size - len(first.texts)
        shortest = longest = first.length
        for length, job in self._near(first, others):
            bounds = min(shortest, length), max(longest, length)
            if len(job.texts) <= room and bounds[1] - bounds[0] <= self.spread:
                chosen.add(job)
                room -= len(job.texts)
                shortest, longest = bounds
        taken = [job for job in self._waiting if job in chosen]
        self._waiting = deque(job for job in self._waiting if job not in chosen)
        return [job for job in taken if job.done.set_running_or_notify_cancel()]

    def _near(self, first: Job, others: Sequence[Job]) -> list[tuple[int, Job]]:
        """Lengths and jobs of those that may share a batch with the first, the nearest to it in length first."""
        alike = [job for job in others if job.alike is not None and job.alike == first.alike]
        known = [(job.length, job) for job in alike if job.length is not None]
        return sorted(known, key=lambda one: abs(one[0] - (first.length or 0)))

    def _answer(self, jobs: list[Job]) -> None:
        try:
            answers = self.answer(jobs)
        except InputError as error:
            # One of them is at fault, and the others are not to hear of it.
            if len(jobs) == 1:
                jobs[0].done.set_exception(error)
                return
            for job in jobs:
                self._answer([job])
            return
        except BaseException as error:
            for job in jobs:
                job.done.set_exception(error)
            return
        self.batches += 1
        self.answered += len(answers)
        for job in jobs:
            own, answers = answers[: len(job.texts)], answers[len(job.texts) :]
            job.done.set_result(own)
