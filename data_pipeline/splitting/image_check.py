"""Images that a command needs again must be those that the manifest recorded."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from pawtune.data_pipeline.errors import DataError
from pawtune.data_pipeline.images.decode import MAX_FILE_BYTES
from pawtune.data_pipeline.safe_files import read_regular
from pawtune.data_pipeline.splitting.manifest import ManifestEntry


def check_unchanged(root: Path, entries: Sequence[ManifestEntry], *, what: str) -> None:
    """Refuses images that are missing, or whose content is not what the manifest recorded.

    Only bytes are compared; nothing is decoded.

    Args:
        root: Folder of the images now.
        entries: Images that are needed.
        what: They are called in the message: "test", "training or validation".

    Raises:
        DataError: With the first such file.
    """
    for entry in entries:
        try:
            # An untrusted manifest may name a pipe or /dev/zero.
            content = read_regular(root / entry.path, MAX_FILE_BYTES)
            digest = hashlib.sha256(content).hexdigest()
        except OSError as error:
            raise DataError(
                f"every {what} image must be where the run found it, but {root / entry.path} "
                f"cannot be read: {error.strerror}; give its new place with --data"
            ) from error
        if digest != entry.sha256:
            raise DataError(
                f"a {what} image must be what the search saw, but {root / entry.path} "
                "has other content now; restore it, or start a new run on the new data"
            )
