"""Who has a trial: workers claim it, and one that kills its workers ends."""

import secrets

from pawtune.search.storage.retry import must_exist, retry_storage
from pawtune.search.storage.run_folder import TrialFolder

MAX_ATTEMPTS = 4


class LostWorkerError(RuntimeError):
    """A trial's workers died again and again."""


class TakenOverError(RuntimeError):
    """Another worker has the trial: this one was given up for dead, or its driver died."""


def begin_attempt(folder: TrialFolder) -> str:
    """Claims a trial, and counts how often it was begun since it last kept a state.

    One that kills its worker must not do so for ever; one that gets on between the losses of its
    machines may.

    Returns:
        The claim. A worker that finds another's in the folder has lost the trial.

    Raises:
        LostWorkerError: Too many workers died of it.
    """
    claim = secrets.token_hex(8)

    def write() -> int:
        must_exist(folder.root.parent)
        attempts = folder.read_attempts() + 1
        folder.write_attempts(attempts, claim)
        return attempts

    if retry_storage(write) > MAX_ATTEMPTS:
        raise LostWorkerError(
            f"the worker process died {MAX_ATTEMPTS} times in this trial: out of memory, or killed "
            "from outside; give trials more memory (fewer at once: --concurrency)"
        )
    return claim


def check_claim(folder: TrialFolder, claim: str) -> None:
    """Makes sure that the trial is still this worker's, before it writes.

    A driver that is killed leaves workers on other machines behind for some seconds, and a machine
    cut off from the cluster goes on training: their trials may have been begun anew by then.

    Raises:
        TakenOverError: It is another's.
    """
    if retry_storage(folder.read_claim) != claim:
        raise TakenOverError(f"trial {folder.trial_id} was begun again by another worker")
