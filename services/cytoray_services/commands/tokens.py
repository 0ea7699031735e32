"""``cytoray tokens``: who may ask the service for what."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cytoray_services.commands.output import JsonOption, print_json
from cytoray_services.settings import load_settings

if TYPE_CHECKING:
    from cytoray_services.tokens import Token

app = typer.Typer(no_args_is_help=True, help="Make, list, replace and revoke the tokens that callers show.")

NAME = typer.Argument(metavar="NAME", help="Who has the token.")
FileOption = Annotated[
    Path | None,
    typer.Option("--file", metavar="FILE", envvar="CYTORAY_TOKENS", help="Default: tokens.json in the home folder."),
]


@app.command()
def create(
    name: Annotated[str, NAME],
    scope: Annotated[
        list[str],
        typer.Option("--scope", help="What it allows: predict, submit (jobs) or administer (all); may be repeated."),
    ],
    team: Annotated[str | None, typer.Option(help="Whose jobs it may see, and whose quota it uses up.")] = None,
    days: Annotated[int, typer.Option(min=1, max=3650, help="How long it is valid.")] = 90,
    file: FileOption = None,
    json: JsonOption = False,
) -> None:
    """Make a token and print it, this once."""
    from cytoray_services.tokens import create_token

    text, token = create_token(_path(file), name, tuple(scope), days=days, team=team)  # type: ignore[arg-type]
    _print_new(text, token, json)


@app.command("list")
def list_tokens(file: FileOption = None, json: JsonOption = False) -> None:
    """List the tokens, without their secrets."""
    from cytoray_services.tokens import read_tokens

    path = _path(file)
    tokens = read_tokens(path) if path.exists() else ()
    if json:
        print_json({"tokens": [_facts(token) for token in tokens]})
        return
    if not tokens:
        typer.echo(f"there are no tokens in {path}{'' if path.exists() else ', which does not exist'}", err=True)
    for token in tokens:
        state = "" if token.valid(datetime.now(UTC)) else "  (expired)"
        team = "" if token.team is None else f"  team {token.team}"
        until = f"until {token.expires:%Y-%m-%d %H:%M}{state}"
        typer.echo(f"{token.name}  {token.id}  {','.join(token.scopes)}{team}  {until}")


@app.command()
def rotate(
    name: Annotated[str, NAME],
    grace_hours: Annotated[float, typer.Option(min=0, help="How long the old token stays valid.")] = 24.0,
    days: Annotated[
        int | None, typer.Option(min=1, max=3650, help="How long the new one is valid; default as the old one was.")
    ] = None,
    file: FileOption = None,
    json: JsonOption = False,
) -> None:
    """Replace a token by a new one and print that, this once."""
    from cytoray_services.tokens import rotate_token

    text, token = rotate_token(_path(file), name, grace=timedelta(hours=grace_hours), days=days)
    _print_new(text, token, json)


@app.command()
def revoke(name: Annotated[str, NAME], file: FileOption = None, json: JsonOption = False) -> None:
    """Remove a token; running services notice within a second."""
    from cytoray_services.tokens import revoke_token

    revoke_token(_path(file), name)
    if json:
        print_json({"revoked": name})
    else:
        typer.echo(f"{name} has no token any more", err=True)


def _path(file: Path | None) -> Path:
    from cytoray_services.tokens import tokens_path

    return file or tokens_path(load_settings())


def _print_new(text: str, token: Token, json: bool) -> None:
    if json:
        print_json({"token": text, **_facts(token)})
        return
    typer.echo(text)
    typer.echo(f"This is shown once. It is valid until {token.expires:%Y-%m-%d %H:%M} UTC.", err=True)


def _facts(token: Token) -> dict[str, Any]:
    return token.model_dump(exclude={"digest"}) | {"valid": token.valid(datetime.now(UTC))}
