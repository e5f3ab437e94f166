"""Shards as files of this machine: where they are elsewhere copied into a cache, and always as they were written."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

from lmtasks.artifacts.durable import digest
from lmtasks.config import caches
from lmtasks.data.prepared.shard import Shard
from lmtasks.data.prepared.store import Store
from lmtasks.errors import RunError

GIGABYTE = 10**9


class LocalCopies:
    """The shards of a store as local files, those that come next fetched in the background.

    The cache is one for all processes of a machine, and by content: the first that wants a shard fetches it, the others
    wait. Beyond the limit those go that nobody has used for longest; whoever has one open may go on reading it.

    Args:
        limit: bytes of the cache.
    """

    def __init__(self, store: Store, limit: int) -> None:
        self.store, self.limit = store, limit
        self._pool: ThreadPoolExecutor | None = None
        self._begin()

    def path(self, shard: Shard) -> Path:
        """The file of a shard, waited for.

        Raises:
            RunError: it is missing, is not what was written, or cannot be reached.
        """
        self._of_this_process()
        coming = self._coming.pop(shard.file, None)
        # What is needed now does not wait for what may be needed later.
        return self._found(shard) if coming is None or coming.cancel() else coming.result()

    def expect(self, shards: Iterable[Shard]) -> None:
        """Fetch these in the background, in this order; whatever is wrong with one is told when it is asked for."""
        self._of_this_process()
        for shard in shards:
            if shard.file not in self._coming and shard.file not in self._good:
                self._pool = self._pool or ThreadPoolExecutor(1, "lmtasks-shards")
                self._coming[shard.file] = self._pool.submit(self._found, shard)

    def _begin(self) -> None:
        self._process = os.getpid()
        self._pool = None
        self._coming: dict[str, Future[Path]] = {}
        self._good: set[str] = set()

    def _of_this_process(self) -> None:
        """Begin anew in a process of a data loader: threads are not forked."""
        if self._process != os.getpid():
            self._begin()

    def __getstate__(self) -> dict[str, object]:
        return {"store": self.store, "limit": self.limit}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._begin()

    def _found(self, shard: Shard) -> Path:
        folder = self.store.folder
        path = self._copied(shard) if folder is None else folder / shard.file
        if shard.file in self._good:
            return path
        if not path.is_file():
            raise _wrong(self.store, shard, "is missing")
        if digest(path) != shard.sha256:
            if folder is None:
                path.unlink(missing_ok=True)
            raise _wrong(self.store, shard, "is not as it was written")
        self._good.add(shard.file)
        return path

    def _copied(self, shard: Shard) -> Path:
        home = Path(caches.own(), "shards")
        path = home / shard.sha256[:32]
        with _alone(home, path.name):
            if not path.is_file() or path.stat().st_size != shard.bytes:
                self._good.discard(shard.file)
                _make_room(home, self.limit - shard.bytes)
                new = path.with_suffix(f".{os.getpid()}-{threading.get_ident()}")
                try:
                    if not self.store.fetch(shard.file, new):
                        raise _wrong(self.store, shard, "is missing")
                    os.replace(new, path)
                finally:
                    new.unlink(missing_ok=True)
            with suppress(OSError):  # the time of the last use, by which it is decided what goes
                os.utime(path)
        return path


def _wrong(store: Store, shard: Shard, what: str) -> RunError:
    hint = "remove what is left of it, and the command that prepared the data writes it again"
    return RunError(f"'{store.url}/{shard.file}' {what}", hint)


@contextmanager
def _alone(home: Path, name: str) -> Iterator[None]:
    """While this is open, no other process of this machine fetches the shard; where there are no locks, some may."""
    home.mkdir(parents=True, exist_ok=True)
    with (home / f".{name}.lock").open("a") as lock:
        with suppress(ImportError, OSError):
            import fcntl

            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _make_room(home: Path, limit: int) -> None:
    """Remove the shards that were not used for longest, until the others have no more bytes than the limit."""
    kept = []
    for path in home.iterdir():
        with suppress(OSError):  # another process may be at the same
            if "." not in path.name:
                status = path.stat()
                kept.append((status.st_mtime_ns, status.st_size, path))
    size = sum(bytes_ for _, bytes_, _ in kept)
    for _, bytes_, path in sorted(kept):
        if size <= limit:
            return
        path.unlink(missing_ok=True)
        size -= bytes_
