"""Threads for handlers that are not async.

Not concurrent.futures: its threads are joined when the interpreter ends, so one handler that hangs
would keep a plugin from exiting. These are daemons, and made only when none is idle, because threads
count against the plugin's `resources.pids`.
"""

import sys
import threading
import traceback
from collections import deque
from typing import Callable, Deque

Job = Callable[[], None]


class Pool:
    """Runs jobs on at most ``threads`` threads. Jobs wait in a queue that the caller bounds."""

    def __init__(self, threads: int) -> None:
        self._most = threads
        self._count = 0
        self._idle = 0
        self._jobs: Deque[Job] = deque()
        self._closed = False
        self._ready = threading.Condition(threading.Lock())

    def submit(self, job: Job) -> None:
        """Queues a job. Raises RuntimeError if there is no thread and none can be made."""
        with self._ready:
            self._jobs.append(job)
            if self._idle >= len(self._jobs):
                self._ready.notify()
                return
            if self._count >= self._most:
                return
            self._count += 1
        try:
            threading.Thread(target=self._work, name="palisade-worker", daemon=True).start()
        except RuntimeError:
            with self._ready:
                self._count -= 1
                if self._count == 0:
                    self._jobs.clear()
                    raise

    def close(self) -> None:
        """Ends the threads that are idle; the others end after their job. No job may follow."""
        with self._ready:
            self._closed = True
            self._ready.notify_all()

    def _work(self) -> None:
        while True:
            with self._ready:
                while not self._jobs:
                    if self._closed:
                        return
                    self._idle += 1
                    self._ready.wait()
                    self._idle -= 1
                job = self._jobs.popleft()
            try:
                job()
            except BaseException:  # a job answers its own failures; a thread must outlive them
                traceback.print_exc(file=sys.stderr)
            del job
