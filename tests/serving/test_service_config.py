"""What a service is told, by a file and on the command line."""

from pathlib import Path

import pytest

from cytoray_analysis.errors import MissingFileError, RequestError
from cytoray_serving.service.config import Replicas, Resources, ServiceConfig, configured, fitted, read_config


def with_words(
    path: Path | None = None, *models: str, replicas: str = "1", roots: tuple[Path, ...] = ()
) -> ServiceConfig:
    return configured(
        path,
        models=models,
        replicas=replicas,
        threads=None,
        device=None,
        largest_body=9,
        insecure_local=True,
        roots=roots,
    )


def test_the_command_line_adds_to_the_file(tmp_path: Path) -> None:
    path = tmp_path / "service.yaml"
    path.write_text(
        "models: [{model: nuclei@champion, replicas: {min_replicas: 0, max_replicas: 3}}]\n"
        "pipelines: {count: [nuclei, cells]}\nlimits: {seconds: 60}\nallowed: {hosts: [images.example.org]}\n"
    )
    config = with_words(path, "stain", replicas="2-5", roots=(Path("data"),))
    assert [(one.model, one.replicas.min_replicas, one.replicas.max_replicas) for one in config.models] == [
        ("nuclei@champion", 0, 3),
        ("stain", 2, 5),
    ]
    assert (config.limits.seconds, config.limits.body_megabytes, config.insecure_local) == (60, 9, True)
    assert config.allowed.roots == (Path("data").absolute(),)
    assert config.pipelines == {"count": ("nuclei", "cells")}


def test_former_names_are_read_with_a_warning_and_go_before_defaults_of_a_chart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "service.yaml"
    path.write_text(
        "models: [{model: nuclei, replicas: {least: 0, most: 3}, needs: {cpus: 2}}]\n"
        "shared: {replicas: {min_replicas: 0, max_replicas: 2, most: 8}, resources: {cpus: 2}, needs: {gpus: 1}}\n"
        "jobs: {at_once: 3, needs: {cpus: 4}}\n"
    )
    config = read_config(path)
    (nuclei,) = config.models
    assert (nuclei.replicas.min_replicas, nuclei.replicas.max_replicas, nuclei.resources.cpus) == (0, 3, 2)
    assert config.shared is not None
    assert (config.shared.replicas.max_replicas, config.shared.resources) == (8, Resources(cpus=2, gpus=1))
    assert (config.jobs.max_concurrent, config.jobs.resources.cpus) == (3, 4)
    warned = capsys.readouterr().err
    for old, new in (("least", "min_replicas"), ("needs", "resources"), ("at_once", "max_concurrent")):
        assert f"{old} is now {new}" in warned


def test_a_service_without_a_file_asks_for_tokens_and_reads_nowhere() -> None:
    config = ServiceConfig()
    assert not config.insecure_local
    assert not config.allowed.roots
    assert not config.allowed.hosts
    assert not config.allowed.buckets
    assert config.shared is not None
    assert config.shared.replicas == Replicas(min_replicas=0, max_replicas=1)


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("modles: []", "modles"),
        ("models: [{model: a, replicas: {min_replicas: 4, max_replicas: 2}}]", "models.0.replicas"),
        ("models: [{model: ''}]", "models.0.model"),
        ("pipelines: {alone: [nuclei]}", "config"),
        ("limits: {seconds: -1}", "limits.seconds"),
        ("[1, 2]", "config"),
        ("{", "config"),
    ],
)
def test_a_mistake_in_the_file_is_reported_with_its_place(tmp_path: Path, text: str, field: str) -> None:
    path = tmp_path / "service.yaml"
    path.write_text(text)
    with pytest.raises(RequestError) as refused:
        read_config(path)
    assert refused.value.field == field
    assert refused.value.hint


def test_a_file_that_is_not_there_is_reported(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError):
        read_config(tmp_path / "nothing.yaml")


@pytest.mark.parametrize("text", ["two", "3-1", "-1", "0", ""])
def test_replicas_are_a_number_or_two(text: str) -> None:
    with pytest.raises(RequestError, match="number of replicas"):
        with_words(None, "nuclei", replicas=text)


def test_copies_get_what_they_hold_unless_they_say_so() -> None:
    config = fitted(
        ServiceConfig.model_validate(
            {
                "models": [
                    {"model": "nuclei", "needs": {"cpus": 3, "gpus": 0.5}},
                    {"model": "stain", "needs": {"cpus": 2}, "run": {"threads": 7}},
                ],
                "jobs": {"needs": {"gpus": 1}},
            }
        ),
        gpus=0.0,
        threads=None,
        job_threads=2,
    )
    nuclei, stain = config.models
    assert nuclei.resources.options == {"num_cpus": 3.0, "num_gpus": 0.5, "resources": {}}
    assert (nuclei.run.threads, nuclei.run.device) == (3, None)
    assert (stain.run.threads, stain.run.device, stain.resources.gpus) == (7, "cpu", 0.0)
    assert (config.jobs.run.threads, config.jobs.run.device) == (2, None)


def test_a_field_that_is_written_twice_is_refused(tmp_path: Path) -> None:
    (tmp_path / "serve.yaml").write_text("poll_seconds: 1\ninsecure_local: true\npoll_seconds: 2\n")
    with pytest.raises(RequestError, match="'poll_seconds' twice"):
        read_config(tmp_path / "serve.yaml")
