"""A folder that the Hugging Face Hub takes as it is: model, card, and a description of the data."""

import json
import shutil
from pathlib import Path

from pawtune.data_pipeline.safe_files import expanded
from pawtune.search.errors import UserError
from pawtune.search.integrations.croissant import describe_data
from pawtune.search.results.model_choice import ModelChoice
from pawtune.search.run import Run


def write_hub_folder(
    run: Run, out: Path, choice: ModelChoice, *, data_license: str | None = None
) -> list[Path]:
    """Writes `model.keras`, `README.md`, `model_card.json`, `manifest.csv` and `croissant.json`.

    Args:
        run: The run.
        out: A new folder.
        choice: The model.
        data_license: License of the images, as a URL.

    Returns:
        The files.

    Raises:
        UserError: `out` exists or cannot be written, or there is no such model.
    """
    target = expanded(out)
    if target.exists():
        raise UserError(f"--out must be a new folder, received {str(target)!r}; give another")
    try:
        target.mkdir(parents=True)
        run.save_best(target / "model.keras", choice)  # and model_card.json, model_card.md
        (target / "model_card.md").rename(target / "README.md")
        shutil.copyfile(run.folder.root / "manifest.csv", target / "manifest.csv")
        described = json.dumps(describe_data(run, data_license), indent=2, ensure_ascii=False)
        (target / "croissant.json").write_text(described + "\n", encoding="utf-8")
    except BaseException as error:
        shutil.rmtree(target, ignore_errors=True)
        if isinstance(error, OSError):
            raise UserError(
                f"--out must be a folder that can be written, received {str(target)!r}: "
                f"{error.strerror}"
            ) from error
        raise
    return sorted(target.iterdir())
