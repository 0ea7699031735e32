"""``cytoray cache``: list and remove what training runs store on this machine."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cytoray_services.commands.output import JsonOption, print_json
from cytoray_services.settings import load_settings

if TYPE_CHECKING:
    from cytoray_training.data.kept_caches import KeptCache

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="List and remove what training runs store on this machine (CYTORAY_CACHE, and shards in CYTORAY_HOME). "
    "A training run creates what is missing again.\n\nExample: cytoray cache list",
)
_DAY = 86400.0
_TITLES = ("KEY", "WHAT", "SIZE", "AGE", "LAST USED", "IN USE BY", "DATA SET")


@app.command("list")
def list_kept(json: JsonOption = False) -> None:
    """List decoded images, shards, copies of bucket files and leftovers of killed processes, last used first.

    Example: cytoray cache list --json
    """
    from cytoray_training.data.kept_caches import list_caches

    caches = list_caches(load_settings())
    if json:
        print_json({"caches": [_facts(one) for one in caches]})
        return
    if not caches:
        typer.echo("nothing is stored on this machine", err=True)
        return
    rows = [_TITLES, *(_row(one) for one in caches)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_TITLES) - 1)]
    for row in rows:
        typer.echo("  ".join([text.ljust(width) for text, width in zip(row, widths, strict=False)] + [row[-1]]))
    typer.echo(f"{_size(sum(one.bytes for one in caches))} in total", err=True)


@app.command()
def remove(
    keys: Annotated[list[str] | None, typer.Argument(metavar="[KEY]…", help="Keys, or their first characters.")] = None,
    older_than: Annotated[
        float | None, typer.Option(min=0, metavar="DAYS", help="Only what was not used for this number of days.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be removed; remove nothing.")] = False,
    json: JsonOption = False,
) -> None:
    """Remove stored data, but never what a training run uses at the moment.

    Example: cytoray cache remove --older-than 30 --dry-run
    """
    from cytoray_training.data.kept_caches import choose_caches, list_caches, remove_cache

    chosen = choose_caches(list_caches(load_settings()), keys or (), older_than)
    # remove_cache checks again whether it is in use: a training run may have started in the meantime.
    gone = [one for one in chosen if (one.users is None if dry_run else remove_cache(one))]
    left = [one for one in chosen if one not in gone]
    if json:
        print_json({"removed": _keys(gone), "in_use": _keys(left), "bytes": _bytes(gone), "dry_run": dry_run})
        return
    for one in left:
        typer.echo(f"{one.key}: in use, not removed", err=True)
    for one in gone:
        typer.echo(f"{one.key}  {one.what}  {_size(one.bytes)}")
    typer.echo(f"{'would remove' if dry_run else 'removed'} {len(gone)}, {_size(_bytes(gone))}", err=True)


def _row(cache: KeptCache) -> tuple[str, ...]:
    now = time.time()
    return (
        cache.key,
        cache.what,
        _size(cache.bytes),
        _days(now - cache.made),
        f"{_days(now - cache.used)} ago",
        _users(cache.users),
        cache.data or "unknown",
    )


def _users(users: tuple[int, ...] | None) -> str:
    if users is None:
        return "-"
    return f"process {', '.join(map(str, users))}" if users else "a process on another machine"


def _size(size: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"


def _days(seconds: float) -> str:
    for unit, length in (("d", _DAY), ("h", 3600.0), ("min", 60.0)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return "0 min"


def _facts(cache: KeptCache) -> dict[str, Any]:
    return asdict(cache) | {"in_use": cache.users is not None}


def _keys(caches: Iterable[KeptCache]) -> list[str]:
    return [one.key for one in caches]


def _bytes(caches: Iterable[KeptCache]) -> int:
    return sum(one.bytes for one in caches)
