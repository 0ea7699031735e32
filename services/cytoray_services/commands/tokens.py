"""``cytoray tokens``: tokens and their scopes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cytoray_services.commands.output import JsonOption, print_json
from cytoray_services.settings import load_settings

if TYPE_CHECKING:
    from cytoray_services.tokens.tokens import Token

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Create, list, rotate and revoke tokens.\n\nExample: cytoray tokens create lab-a --scope predict",
)

NAME = typer.Argument(metavar="NAME", help="Owner of the token.")
FileOption = Annotated[
    Path | None,
    typer.Option(
        "--file",
        metavar="FILE",
        envvar="CYTORAY_TOKENS",
        help="File of the tokens.",
        show_default="tokens.json in CYTORAY_HOME",
    ),
]


@app.command()
def create(
    name: Annotated[str, NAME],
    scope: Annotated[
        list[str],
        typer.Option(
            "--scope",
            help="Permission: predict, submit (jobs) or administer (everything); predict:MODEL or submit:TEAM for one "
            "model or team; repeatable.",
        ),
    ],
    team: Annotated[str | None, typer.Option(help="Team whose jobs, quota and storage locations it uses.")] = None,
    days: Annotated[int, typer.Option(min=1, max=3650, help="Days until it expires.")] = 90,
    file: FileOption = None,
    json: JsonOption = False,
) -> None:
    """Create a token and print it once.

    Example: cytoray tokens create lab-a --scope predict --scope submit --days 90
    """
    from cytoray_services.tokens.tokens import create_token

    text, token = create_token(_path(file), name, tuple(scope), days=days, team=team)
    _print_new(text, token, json)


@app.command("list")
def list_tokens(file: FileOption = None, json: JsonOption = False) -> None:
    """List the tokens, without their secrets.

    Example: cytoray tokens list
    """
    from cytoray_services.tokens.tokens import read_tokens

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
    grace_hours: Annotated[float, typer.Option(min=0, help="Hours for which the old token stays valid.")] = 24.0,
    days: Annotated[
        int | None,
        typer.Option(min=1, max=3650, help="Days until the new token expires.", show_default="as the old token"),
    ] = None,
    file: FileOption = None,
    json: JsonOption = False,
) -> None:
    """Replace a token by a new one and print it once.

    Example: cytoray tokens rotate lab-a --grace-hours 24
    """
    from cytoray_services.tokens.tokens import rotate_token

    text, token = rotate_token(_path(file), name, grace=timedelta(hours=grace_hours), days=days)
    _print_new(text, token, json)


@app.command()
def revoke(name: Annotated[str, NAME], file: FileOption = None, json: JsonOption = False) -> None:
    """Remove a token; running services reject it within a second.

    Example: cytoray tokens revoke lab-a
    """
    from cytoray_services.tokens.tokens import revoke_token

    revoke_token(_path(file), name)
    if json:
        print_json({"revoked": name})
    else:
        typer.echo(f"the tokens of {name} are revoked", err=True)


def _path(file: Path | None) -> Path:
    from cytoray_services.tokens.tokens import tokens_path

    return file or tokens_path(load_settings())


def _print_new(text: str, token: Token, json: bool) -> None:
    if json:
        print_json({"token": text, **_facts(token)})
        return
    typer.echo(text)
    typer.echo(f"This token is printed only once. It is valid until {token.expires:%Y-%m-%d %H:%M} UTC.", err=True)


def _facts(token: Token) -> dict[str, Any]:
    return token.model_dump(exclude={"digest"}) | {"valid": token.valid(datetime.now(UTC))}
