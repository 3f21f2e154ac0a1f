"""Finding the file that a value of a table stands for."""

import unicodedata
from collections import defaultdict
from collections.abc import Collection, Sequence
from pathlib import PurePosixPath

from pawtune.data_pipeline.safe_files import shown
from pawtune.data_pipeline.splitting.folder_tree import may_be_image


class FileIndex:
    """Finds files by what a table calls them.

    Args:
        paths: All files, relative to the folder, posix.
    """

    def __init__(self, paths: Collection[str]) -> None:
        self._image = next(filter(may_be_image, paths), "no image")
        self._by_name: dict[str, list[str]] = defaultdict(list)
        for found in paths:
            path = PurePosixPath(_plain(found))
            names = {str(path), path.name, str(path.with_suffix("")), path.stem}
            for name in names:
                self._by_name[name].append(found)

    def find(self, value: str) -> Sequence[str]:
        """The files that a value may mean: none, one, or several of one name."""
        path = PurePosixPath(_plain(value.replace("\\", "/")))
        parts = [part for part in path.parts if part not in ("/", ".", "..")]
        for start in range(len(parts)):  # a table may have been written one folder further up
            hits = self._by_name.get("/".join(parts[start:]), [])
            if hits:
                return hits
        return ()  # one object, however many values name no file

    def example(self, values: Collection[str]) -> str:
        """A value that names no file, and a file that is there."""
        value = next((value for value in values if not self.find(value)), "")
        return f"such as {value!r}; the folder has {shown(self._image)!r}"


def _plain(text: str) -> str:
    return unicodedata.normalize("NFC", text)
