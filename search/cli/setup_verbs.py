"""The verbs about data and machine, without a run: preview, doctor, cache."""

from pathlib import Path
from typing import Annotated

import typer

from pawtune.search.cli.options import (
    Json,
    LabelColumn,
    Labels,
    MinClassSize,
    PathColumn,
)
from pawtune.search.cli.output import emit, print_json

cache_app = typer.Typer(help="What pawtune keeps between runs.", no_args_is_help=True)


def preview(
    data: Annotated[str, typer.Argument(metavar="DATA", help="As `run --data`.")],
    out: Annotated[Path, typer.Option(help="Folder for the pictures.")] = Path("preview"),
    image_size: Annotated[int, typer.Option(help="Pixels a side.")] = 160,
    seed: Annotated[int, typer.Option(help="Of the splits.")] = 0,
    labels: Labels = None,
    label_column: LabelColumn = None,
    path_column: PathColumn = None,
    min_class_size: MinClassSize = None,
    as_json: Json = False,
) -> None:
    """Show what is in a data set: counts, rejects, sample and augmentation grids.

    Example: pawtune preview PHOTOS --labels labels.csv
    """
    from pawtune.data_pipeline.splitting.label_tables.label_table import LabelFile
    from pawtune.search.cli.preview import preview_data
    from pawtune.search.progress.reporter import Reporter

    with Reporter() as reporter:
        shown = preview_data(
            data,
            out,
            image_size=image_size,
            seed=seed,
            labels=LabelFile(Path(labels), label_column, path_column) if labels else None,
            min_class_size=min_class_size or 0,
            reporter=reporter,
        )
    emit(shown, as_json)


def doctor(
    data: Annotated[str | None, typer.Option(help="Look at these images, too.")] = None,
    address: Annotated[
        str | None, typer.Option(help="A running Ray cluster; default: start one here.")
    ] = None,
    labels: Labels = None,
    label_column: LabelColumn = None,
    path_column: PathColumn = None,
    as_json: Json = False,
) -> None:
    """Check what a search needs on this machine; exit code 1 where something is wrong.

    Example: pawtune doctor --data PHOTOS
    """
    from pawtune.data_pipeline.splitting.label_tables.label_table import LabelFile
    from pawtune.search.doctor.checks import examine

    table = LabelFile(Path(labels), label_column, path_column) if labels else None
    checks = []
    for check in examine(data, address, table):
        checks.append(check)
        if not as_json:
            print(f"{check.state.upper():<6} {check.name}: {check.found}", flush=True)
            if check.remedy:
                print(f"       → {check.remedy}", flush=True)
    if as_json:
        print_json(checks)
    if any(check.state == "wrong" for check in checks):
        raise typer.Exit(1)


@cache_app.command("list")
def cache_list(as_json: Json = False) -> None:
    """Say what the cache holds, by kind; --json names every entry."""
    from pawtune.data_pipeline.cache import CACHE_KINDS, cache_dir, list_cache

    entries = list_cache(cache_dir())
    if as_json:
        facts = ({"kind": e.kind, "name": e.name, "bytes": e.size_bytes} for e in entries)
        print_json(list(facts))
        return
    sizes: dict[str, int] = {}
    for entry in entries:
        sizes[entry.kind] = sizes.get(entry.kind, 0) + entry.size_bytes
    for kind, size in sizes.items():
        print(f"{kind:<10} {size / 1e6:10.1f} MB  {CACHE_KINDS.get(kind, '')}".rstrip())
    print(f"{'all':<10} {sum(sizes.values()) / 1e6:10.1f} MB  in {cache_dir()}")


@cache_app.command("clear")
def cache_clear(
    kinds: Annotated[
        list[str] | None, typer.Argument(metavar="[KIND]...", help="Default: everything.")
    ] = None,
) -> None:
    """Delete what is in the cache but for what searches use now; it is made again when needed.

    Example: pawtune cache clear pixels banks
    """
    from pawtune.data_pipeline.cache import cache_dir, clear_cache, list_cache

    freed = clear_cache(cache_dir(), kinds or ())
    left = sum(e.size_bytes for e in list_cache(cache_dir()) if not kinds or e.kind in kinds)
    in_use = f"; {left / 1e6:.1f} MB stay, a search uses them" if left else ""
    print(f"{freed / 1e6:.1f} MB freed in {cache_dir()}{in_use}")
