"""A worker whose epochs are written down in advance: real Tune and Optuna, no TensorFlow."""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from pawtune.search.trial_report import BestEpoch, TrialReport
from pawtune.search.worker.trial import TrialWorker
from pawtune.search.worker.trial_client import TrialClient


class ScriptedWorker(TrialWorker):
    """Plays `script[trial_id]`, or `script["*"]`, an item an epoch.

    A number is the epoch's accuracy; "meet" waits until two trials have begun, "die" kills the
    process, "break" raises, and any other text is how the trial fails; "die handed over", first,
    kills the process that is to continue with the trial after another one, once. A trial notes when
    and where it ran in `log_dir`.
    """

    def setup(  # type: ignore[override]
        self, config: dict[str, Any], script: dict[str, list[Any]], log_dir: str, writer: Any
    ) -> None:
        super().setup(config, SimpleNamespace(writer=writer))  # type: ignore[arg-type]
        self.script, self.log_dir = script, log_dir

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        trial_id = new_config["trial_id"]
        died = Path(self.log_dir) / f"died-{trial_id}"
        if self.script.get(trial_id, [""])[0] == "die handed over" and not died.exists():
            died.touch()
            os._exit(1)
        return super().reset_config(new_config)

    def _begin(self, trial: TrialClient) -> Iterator[TrialReport]:
        trial.begin()
        epochs = self.config["spec"]["train"]["epochs"]
        values: list[float] = []
        self.note("start")
        script = self.script.get(trial.trial_id, self.script.get("*", []))
        if script[:1] == ["meet"]:
            self.meet()
        words = ("die handed over", "meet")
        for epoch, value in enumerate((value for value in script if value not in words), 1):
            if value == "die":
                os._exit(1)
            if value == "break":
                raise OSError("broken")
            if isinstance(value, str):
                self.note("end")
                yield TrialReport(failure=value, done=True)
            time.sleep(0.05)
            values.append(value)
            best = max(values)
            if epoch == epochs:
                self.note("end")
            yield TrialReport(
                epoch=epoch,
                metrics={"val_accuracy": value, "val_loss": 1 - value},
                best=BestEpoch(values.index(best) + 1, best, best, 1 - best),
                done=epoch == epochs,
            )

    def meet(self) -> None:
        deadline = time.monotonic() + 300
        while (Path(self.log_dir) / "log").read_text().count(" start\n") < 2:
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def note(self, what: str) -> None:
        with open(os.path.join(self.log_dir, "log"), "a") as log:
            log.write(f"{time.time()} {os.getpid()} {self.config['trial_id']} {what}\n")
