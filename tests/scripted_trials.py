"""A Tune worker whose epochs are written down in advance: real Tune and Optuna, no TensorFlow."""

import os
import time
from pathlib import Path
from typing import Any

from ray import tune

from search.run_folder import TrialFolder
from search.trial import LostWorkerError, begin_attempt


class ScriptedWorker(tune.Trainable):
    """Plays `script[trial_id]`, or `script["*"]`: values of epochs, or an error's text.

    A trial notes when it ran in `log_dir`, so that tests can see what ran at the same time.
    """

    def setup(
        self, config: dict[str, Any], script: dict[str, list[Any]], log_dir: str, trials_dir: str
    ) -> None:
        self.script, self.log_dir, self.trials_dir = script, log_dir, trials_dir
        self.values: list[float] = []

    def step(self) -> dict[str, Any]:
        trial_id = self.config["trial_id"]
        epoch = len(self.values) + 1
        if epoch == 1:
            try:
                begin_attempt(TrialFolder(Path(self.trials_dir) / trial_id))
            except LostWorkerError as error:
                return {"failure": f"LostWorkerError: {error}", "done": True}
            self.note("start")
        value = self.script.get(trial_id, self.script.get("*", [0.5]))[epoch - 1]
        if value == "die":
            os._exit(1)
        if isinstance(value, str):
            self.note("end")
            return {"failure": value, "done": True}
        time.sleep(0.05)
        self.values.append(value)
        done = epoch >= self.config["spec"]["train"]["epochs"]
        if done:
            self.note("end")
        best = max(self.values)
        return {
            "epoch": epoch,
            "objective": best,
            "val_accuracy": value,
            "val_loss": 1 - value,
            "best_val_accuracy": best,
            "best_epoch": self.values.index(best) + 1,
            "done": done,
        }

    def note(self, what: str) -> None:
        with open(os.path.join(self.log_dir, "log"), "a") as log:
            log.write(f"{time.time()} {os.getpid()} {self.config['trial_id']} {what}\n")

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.values = []
        return True

    def save_checkpoint(self, checkpoint_dir: str) -> dict[str, Any]:
        return {}

    def load_checkpoint(self, checkpoint: Any) -> None:
        pass
