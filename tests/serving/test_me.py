"""Who a caller is, as the page asks for it."""

from pathlib import Path
from typing import Any

from cytoray_services.settings import load_settings
from cytoray_services.tokens.tokens import create_token, tokens_path
from serving_in_process import asker, config_of, in_process


def test_a_caller_learns_what_its_token_allows(folders: Any, tmp_path: Path) -> None:
    settings = load_settings({"CYTORAY_HOME": str(tmp_path)})
    grants = {"ada": ("predict:nuclei", "submit:lab"), "root": ("administer",), "eve": ("submit",)}
    tokens = {name: create_token(tokens_path(settings), name, given, days=1)[0] for name, given in grants.items()}
    ask = asker(in_process(settings, config_of([str(folders.nuclei)], insecure_local=False)))

    def me(name: str) -> Any:
        return ask("GET", "/me", headers={"Authorization": f"Bearer {tokens[name]}"}).json()

    assert me("ada") == {
        "name": "ada",
        "scopes": ["predict:nuclei", "submit:lab"],
        "team": None,
        "teams": ["lab"],
        "models": ["nuclei"],
        "administers": False,
        "tokens": True,
        "limits": {"body_megabytes": 8},
    }
    assert me("root")["administers"]
    assert me("eve")["scopes"] == ["submit"]
    assert ask("GET", "/me").status_code == 401
    assert ask("GET", "/me", headers={"Authorization": "Bearer cyt_0_1"}).status_code == 401


def test_a_service_without_tokens_says_so(folders: Any, tmp_path: Path) -> None:
    ask = asker(in_process(load_settings({"CYTORAY_HOME": str(tmp_path)}), config_of([str(folders.nuclei)])))
    found = ask("GET", "/me").json()
    assert (found["name"], found["tokens"], found["administers"]) == ("local", False, True)
