"""A trial's specification, by the trial's id."""

from pawtune.models.spec import TrialSpec
from pawtune.search.storage.run_folder import RunFolder


def load_spec(run: RunFolder, trial_id: str) -> TrialSpec:
    """A trial's specification.

    Raises:
        UserError: There is no such trial, or its file is no valid specification.
    """
    return run.trial(trial_id).read_proposal().spec
