"""What a search would do and cost, without training anything."""

from dataclasses import asdict, dataclass
from typing import Any

from pawtune.data_pipeline.splitting.manifest import Manifest
from pawtune.models.words import count
from pawtune.search.cluster.connection import plan_resources, this_machine
from pawtune.search.cluster.head_address import probe_head
from pawtune.search.config.needs import needs_of_proposals, needs_of_trials, pixel_sizes
from pawtune.search.config.own_metric import metric_in_use
from pawtune.search.config.search_config import (
    SearchConfig,
    default_name,
    dump_config,
    plain_settings,
)
from pawtune.search.driver import load_data, with_absolute_paths
from pawtune.search.progress.reporter import Reporter
from pawtune.search.shared_work.backbones import (
    Families,
    baselines_of,
    find_families,
    refuse_wrong_weights,
)
from pawtune.search.shared_work.price import SharedPart, price_shared_work
from pawtune.search.storage.run_folder import open_run_folder, refuse_run_folder


@dataclass(frozen=True)
class Plan:
    """A search before it starts."""

    config: SearchConfig
    manifest: Manifest
    families: Families
    num_baselines: int
    sizes: tuple[int, ...]
    shared: tuple[SharedPart, ...]

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "config": plain_settings(self.config),
            "counts": self.manifest.counts(),
            "rejects": len(self.manifest.rejects),
            "families": list(self.families.names),
            "cost": self.cost(),
            "shared_work": [asdict(part) for part in self.shared],
        }

    def cost(self) -> dict[str, Any]:
        """Upper bounds: early stopping usually saves about half of the proposed epochs."""
        counts = {s: sum(labels.values()) for s, labels in self.manifest.counts().items()}
        kept = counts["train"] + counts["validation"]
        proposed = self.config.trials if self.config.baselines != "only" else 0
        trials = proposed + self.num_baselines
        return {
            "trials": trials,
            "baselines": self.num_baselines,
            "epochs_at_most": trials * self.config.epochs,
            "image_passes_at_most": trials * self.config.epochs * counts["train"],
            "decoded_megabytes": round(sum(kept * size * size * 3 for size in self.sizes) / 1e6, 1),
        }

    def show(self, console: Any) -> None:
        """For people."""
        print(dump_config(self.config).rstrip())
        print()
        for split, labels in self.manifest.counts().items():
            listing = ", ".join(f"{number} {label}" for label, number in labels.items())
            print(f"{split}: {count(sum(labels.values()), 'image')} ({listing})")
        for note in self.manifest.notes:
            print(note)
        if self.manifest.rejects:
            print(f"left out: {count(len(self.manifest.rejects), 'file')} (see `pawtune preview`)")
        cost = self.cost()
        print(
            f"cost: {count(cost['trials'], 'trial')} ({cost['baselines']} of them baselines), at "
            f"most {count(cost['epochs_at_most'], 'epoch')}, {cost['image_passes_at_most']:,} "
            f"image passes; {cost['decoded_megabytes']} MB of decoded pixels in the cache"
        )
        if self.shared:
            print("shared work, made when a trial first asks for it, times on these CPUs:")
        for part in self.shared:
            print(f"  {part}")
        print("nothing was trained (--dry-run)")


def describe(config: SearchConfig, reporter: Reporter) -> Plan:
    """Reads the data and looks for weights, as the search would.

    Raises:
        DataError, ModelError, UserError: As the search would.
    """
    metric_in_use(config.metric)
    probe_head(config.resources.address)
    if config.resources.address in (None, "", "local"):
        plan_resources(config.resources, this_machine())
    config = with_absolute_paths(config)
    refuse_run_folder(config.runs_dir, config.name or default_name(config))
    for earlier in config.learn_from:
        open_run_folder(earlier, config.runs_dir)
    refuse_wrong_weights(config)
    manifest = load_data(config, reporter.stage)
    families = find_families(config, reporter.say)
    baselines = baselines_of(config, families, len(manifest.class_names), reporter.say)
    needs = needs_of_trials(config, baselines) | needs_of_proposals(config, families.names)
    counts = {split: len(manifest.split(split)) for split in ("train", "validation")}
    shared = price_shared_work(
        needs, families.weights, counts["train"], counts["validation"], config.bank_views
    )
    return Plan(config, manifest, families, len(baselines), pixel_sizes(needs), tuple(shared))
