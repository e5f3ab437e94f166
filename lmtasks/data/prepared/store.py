"""The place of prepared data: a folder, or whatever fsspec reaches by a URL."""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec

from lmtasks.artifacts.durable import flush, half_written
from lmtasks.errors import InputError, LmtasksError, RunError, first_line


class Store:
    """A folder of files, here or elsewhere.

    Args:
        url: a path, or a URL such as ``file:///data/wiki`` or ``s3://bucket/wiki``.
        flag: what the user named it with.

    Raises:
        InputError: nobody reads such a URL, the package that does is missing, or the URL holds a password.
    """

    def __init__(self, url: str, flag: str) -> None:
        self.url = url.rstrip("/") or "/"
        if re.match(r"[\w+.-]+://[^/]*@", url):
            raise InputError(f"--{flag} holds a name or a password, which would end up in files", "leave it out")
        try:
            self._files, root = fsspec.core.url_to_fs(self.url)
        except ImportError as error:
            package = re.search(r"[Ii]nstall (?:the )?([\w-]+)", str(error))
            hint = f"pip install {package[1]}" if package else "install what it names"
            raise InputError(f"--{flag} {url}: {first_line(error)}", hint) from error
        except ValueError as error:
            raise InputError(f"--{flag} {url}: {first_line(error)}", "a folder, or a URL of fsspec's") from error
        self._root = root.rstrip("/") or "/"
        protocol = self._files.protocol
        self.folder = Path(root) if "file" in ([protocol] if isinstance(protocol, str) else protocol) else None

    def sizes(self) -> dict[str, int]:
        """The bytes of each file by its name; none where there is no such place."""
        with self._reached():
            self._files.invalidate_cache()
            try:
                found = self._files.ls(self._root, detail=True)
            except (FileNotFoundError, NotADirectoryError):
                return {}
            for one in found:
                if one["type"] == "file" and one["size"] is None:  # a server of web pages lists names alone
                    one["size"] = self._files.size(one["name"])
        return {PurePosixPath(one["name"]).name: int(one["size"] or 0) for one in found if one["type"] == "file"}

    def read(self, name: str) -> bytes | None:
        """What a small file holds; None where it is not there."""
        with self._reached():
            try:
                found: bytes = self._files.cat_file(f"{self._root}/{name}")
            except (FileNotFoundError, NotADirectoryError):
                return None
        return found

    def read_json(self, name: str) -> dict[str, Any] | None:
        """The same for a JSON object.

        Raises:
            InputError: it is none.
        """
        if (found := self.read(name)) is None:
            return None
        try:
            content = json.loads(found)
        except (ValueError, RecursionError) as error:
            raise InputError(f"'{self.url}/{name}' is damaged: {first_line(error)}", "prepare the data anew") from error
        if not isinstance(content, dict):
            raise InputError(f"'{self.url}/{name}' is damaged: it is no JSON object", "prepare the data anew")
        return content

    def write_json(self, name: str, content: Mapping[str, Any]) -> None:
        """Write, or replace, a JSON object in one step."""
        with self.new(name) as path:
            path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

    @contextmanager
    def new(self, name: str) -> Iterator[Path]:
        """A path for the content of a file, which is there, whole, when this closes."""
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
            place = self.folder / name
            path = half_written(place).with_suffix(f".{os.getpid()}")  # another process may write the same
            try:
                yield path
                flush(path)
                os.replace(path, place)
            finally:
                path.unlink(missing_ok=True)
            return
        with tempfile.TemporaryDirectory(prefix="lmtasks-") as folder:
            path = Path(folder, name)
            yield path
            with self._reached():
                self._files.makedirs(self._root, exist_ok=True)
                self._files.put_file(str(path), f"{self._root}/{name}")

    def fetch(self, name: str, path: Path) -> bool:
        """Copy a file to a path here; false where it is not there."""
        with self._reached():
            try:
                self._files.get_file(f"{self._root}/{name}", str(path))
            except FileNotFoundError:
                return False
        return True

    def remove(self, name: str) -> None:
        """Remove a file."""
        with self._reached():
            self._files.rm_file(f"{self._root}/{name}")

    @contextmanager
    def _reached(self) -> Iterator[None]:
        """While this is open, what a file system says goes on as one of our errors; each has its own kinds."""
        try:
            yield
        except LmtasksError:
            raise
        except Exception as error:
            if self.folder is not None:
                raise  # a failure of this machine, which is told as any other
            told = f"'{self.url}': {type(error).__name__}: {first_line(error)}"
            raise RunError(told, "see that it is reached, then try again") from error
