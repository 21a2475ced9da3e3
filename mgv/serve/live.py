"""The library that is live, open for as long as it is; a new library or champion is picked up by the next request."""

from __future__ import annotations

import logging
import threading
from dataclasses import replace
from pathlib import Path

from mgv.ask.library import Library, parameters_of
from mgv.ask.opened import Answerers
from mgv.registry import live
from mgv.workspace import find_workspace

logger = logging.getLogger(__name__)


class LiveLibrary:
    """Safe to use from many threads. Requests under way finish with the library that they began with."""

    def __init__(self, root: Path) -> None:
        """root: the workspace. Raises WorkspaceError where there is none."""
        self.workspace = find_workspace(root)
        self.answering = threading.Lock()
        """Held while an answer is written: one at a time."""
        self._opening = threading.Lock()
        self._answerers = Answerers()
        self._library: Library | None = None
        self._stamp: tuple[tuple[int, int], ...] = ()

    def get(self) -> Library:
        """What is live now. Raises WorkspaceError where nothing has been materialised."""
        with self._opening:
            stamp = self._changed()
            if self._library is None or stamp != self._stamp:
                workspace = find_workspace(self.workspace.root)
                answering = live(workspace)
                workspace = replace(workspace, params=parameters_of(workspace, answering))
                self._library = Library.of(workspace, answering, answerers=self._answerers)
                self._stamp = stamp
                logger.info("serving library %s", answering.manifest.tag)
            return self._library

    def _changed(self) -> tuple[tuple[int, int], ...]:
        """Time and size of the files that say what is live."""
        workspace = self.workspace
        places = (
            workspace.manifest,
            workspace.published_dir / "champion.json",
            workspace.root / "params.yaml",
        )
        return tuple(_stamp(path) for path in places)


def _stamp(path: Path) -> tuple[int, int]:
    try:
        facts = path.stat()
    except OSError:
        return 0, 0
    return facts.st_mtime_ns, facts.st_size
