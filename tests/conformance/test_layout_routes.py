"""Every layout arrives the same by every route: path, bytes, upload, URI, gRPC, job, data check, training."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from conformance.echo_models import write_echo
from conformance.holes import HOLES
from conformance.layouts import LAYOUTS, Layout
from conformance.routes import ROUTES, SENDING, TRUSTED, Arrived, RefusedError, Sent, Service, run_grpc
from cytoray_analysis.errors import CytorayError
from cytoray_analysis.images import image_from_array, read_image
from cytoray_analysis.images.axes import channel_names
from cytoray_analysis.inference import runner
from cytoray_analysis.selection import EVERYTHING, Selection
from cytoray_services.settings import load_settings
from cytoray_services.storage.allowed import Allowed
from serving_in_process import asker, config_of, in_process

RAN: set[tuple[str, str]] = set()
Models = dict[tuple[tuple[str, ...], str], str]


def selected(layout: Layout) -> Selection:
    """Return what is asked about: of a movie its last frame, because models of pixels take images and stacks."""
    if "T" not in layout.axes:
        return layout.selection
    last = layout.array.shape[layout.axes.index("T")] - 1
    return layout.selection.model_copy(update={"frame": str(last)})


def expected_of(layout: Layout) -> tuple[np.ndarray, str, tuple[str, ...]]:
    """Return pixels, axes and channels of what is asked about."""
    array, axes = layout.array, layout.axes
    if "T" in axes:
        array, axes = array[-1], axes.replace("T", "")
    count = array.shape[axes.index("C")] if "C" in axes else 1
    return array, axes, layout.channels or channel_names(None, count)


def model_of(layout: Layout) -> tuple[tuple[str, ...], str]:
    _, axes, channels = expected_of(layout)
    return channels, axes if "C" in axes else f"C{axes}"


@pytest.fixture(scope="module", autouse=True)
def _exact() -> Iterator[None]:
    """Compute in fp32 on every processor: what is asked is what arrives, not how exactly a network multiplies."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner, "choose_precision", lambda device: "fp32")
        yield


@pytest.fixture(scope="module")
def models() -> Models:
    """Give a name to each kind of model that the layouts need."""
    kinds = dict.fromkeys(model_of(layout) for layout in LAYOUTS.values())
    kinds |= dict.fromkeys([(("grey",), "CYX"), (("grey",), "CZYX"), (channel_names(None, 2), "CYX")])
    return {kind: f"echo-{number}" for number, kind in enumerate(kinds)}


@pytest.fixture(scope="module")
def service(models: Models, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Put a service of all these models together in this process, and serve it over gRPC from a thread."""
    home = tmp_path_factory.mktemp("home")
    bundles = {name: write_echo(home, name, channels, axes) for (channels, axes), name in models.items()}
    settings = load_settings({"CYTORAY_HOME": str(home / "cytoray")})
    allowed = Allowed(roots=(tmp_path_factory.getbasetemp(),))
    config = config_of([str(bundle) for bundle in bundles.values()], allowed=allowed)
    assembled = in_process(settings, config)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    server, port = run_grpc(assembled.answering(None), loop)
    yield Service(assembled, asker(assembled), settings, bundles, f"127.0.0.1:{port}", allowed)
    asyncio.run_coroutine_threadsafe(server.stop(1), loop).result(20)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(20)


def check(arrived: Arrived, layout: Layout, route: str) -> None:
    array, axes, channels = expected_of(layout)
    wanted = (array if "C" in axes else array[None]).astype(np.float64)
    assert arrived.pixels.shape == wanted.shape
    # Answers of models are float32.
    difference = np.abs(arrived.pixels.astype(np.float64) - wanted.astype(np.float32)).max()
    assert difference <= layout.tolerance + 1e-7 * np.abs(wanted).max()
    if arrived.channels is not None:
        assert arrived.channels == channels
    if arrived.pixel_size is not None:
        assert dict(arrived.pixel_size) == pytest.approx(
            {axis: size for axis, size in (layout.pixel_size or {}).items() if axis in axes}
        )


# Bytes that are read in a process of their own go the same way by whatever route they are sent: all routes send the
# first store and the first hole of one, and uploads all of them; make test-long sends everything by every route.
FIRST = {next(name for name in among if "OME-Zarr" in name) for among in (LAYOUTS, HOLES)}
SAMPLED = 1  # further route of each layout in make test; other layouts take others


def marks(apart: bool, name: str, route: str, number: int) -> tuple[pytest.MarkDecorator, ...]:
    """Return when a pair is run, which takes a second when the bytes are read `apart`, in a process of their own.

    Pairs are many: make test-fast takes a trusted route and one of strangers, make test some of the others, in turns
    by the `number` of the layout, and make test-long all.
    """
    if apart:
        return (pytest.mark.long if route in SENDING - {"upload"} and name not in FIRST else pytest.mark.slow,)
    if route in ("path", "upload"):
        return ()
    others = [one for one in ROUTES if one not in ("path", "upload")]
    turn = (others.index(route) - SAMPLED * number) % len(others)
    return (pytest.mark.slow if turn < SAMPLED or name in FIRST else pytest.mark.long,)


def is_apart(layout: Layout, name: str, route: str) -> bool:
    return (layout.apart and route in SENDING | {"URI"}) or ("OME-Zarr" in name and route in SENDING)


PAIRS = [
    pytest.param(name, route, marks=marks(is_apart(layout, name, route), name, route, number))
    for number, (name, layout) in enumerate(LAYOUTS.items())
    for route in ROUTES
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "route"), PAIRS)
def test_a_layout_arrives_by_a_route(name: str, route: str, service: Service, models: Models, tmp_path: Path) -> None:
    layout = LAYOUTS[name]
    selection = selected(layout)
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    path = layout.write(tmp_path / "in")
    array, axes, channels = expected_of(layout)
    kind = model_of(layout)
    # Of codecs that lose something other routes must give what the path gives.
    image = (
        read_image(path, selection=selection) if layout.tolerance else image_from_array(array, axes, channels=channels)
    )
    sent = Sent(path, selection, image, models[kind], *kind, tmp_path / "out")
    if layout.other_file and route not in TRUSTED:
        with pytest.raises((RefusedError, CytorayError), match=re.escape(layout.other_file)):
            ROUTES[route](sent, service)
    else:
        check(ROUTES[route](sent, service), layout, route)
    RAN.add((name, route))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "route"),
    [
        pytest.param(name, route, marks=marks(route in SENDING and "Zarr" in name, name, route, number))
        for number, name in enumerate(HOLES)
        if "zip" not in name
        for route in ROUTES
    ],
)
def test_a_hole_is_named_by_a_route_and_can_be_avoided(
    name: str, route: str, service: Service, models: Models, tmp_path: Path
) -> None:
    hole = HOLES[name]
    for folder in ("in", "out", "out2"):
        (tmp_path / folder).mkdir()
    path = hole.write(tmp_path / "in")
    if "T" not in hole.axes:
        whole = (
            (("grey",), "CZYX")
            if "Z" in hole.axes
            else (channel_names(None, 2) if "C" in hole.axes else ("grey",), "CYX")
        )
        blank = image_from_array(np.zeros([8] * len(hole.axes)), hole.axes)
        sent = Sent(path, EVERYTHING, blank, models[whole], *whole, tmp_path / "out")
        with pytest.raises((RefusedError, CytorayError), match=hole.named):
            ROUTES[route](sent, service)
    if hole.avoiding is not None and hole.array is not None:
        axes = "CYX"[-hole.array.ndim :]
        count = len(hole.array) if hole.array.ndim == 3 else 1
        kind = (channel_names(None, count), "CYX")
        image = image_from_array(hole.array, axes)
        sent = Sent(path, hole.avoiding, image, models[kind], *kind, tmp_path / "out2")
        pixels = ROUTES[route](sent, service).pixels
        assert np.array_equal(pixels, hole.array if axes == "CYX" else hole.array[None])


def test_every_layout_was_run_by_every_route(request: pytest.FixtureRequest) -> None:
    """Count what ran: a route that is forgotten for a layout fails here."""
    assert {"path", "bytes", "upload", "URI", "gRPC", "job", "data check", "training"} <= set(ROUTES)
    mine = [item for item in request.session.items if item.fspath == request.node.fspath]
    assert {pair.values for pair in PAIRS} == {(name, route) for name in LAYOUTS for route in ROUTES}
    asked = {
        (item.callspec.params["name"], item.callspec.params["route"])
        for item in mine
        if isinstance(item, pytest.Function) and item.originalname == "test_a_layout_arrives_by_a_route"
    }
    assert not asked - RAN, f"{len(asked - RAN)} of {len(asked)} did not run: {sorted(asked - RAN)[:20]}"
