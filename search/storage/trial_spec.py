"""A trial's specification, read from its folder."""

from pawtune.models.spec import TrialSpec
from pawtune.search.errors import UserError
from pawtune.search.storage.run_folder import RunFolder, TrialFolder, read_json


def load_spec(run: RunFolder, trial_id: str) -> TrialSpec:
    """A trial's specification.

    Raises:
        UserError: The file is no valid specification.
    """
    return read_spec(run.trial(trial_id))


def read_spec(trial: TrialFolder) -> TrialSpec:
    """The specification in a trial's folder.

    Raises:
        UserError: The file is no valid specification.
    """
    from pydantic import ValidationError

    from pawtune.models.spec import explain

    content = read_json(trial.spec_file)
    content = {k: v for k, v in content.items() if k not in ("baseline", "params")}
    try:
        return TrialSpec.model_validate(content)
    except ValidationError as error:
        raise UserError(
            f"trial {trial.trial_id}'s spec.json is not valid: {explain(error)}"
        ) from error
