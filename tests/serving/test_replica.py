"""One version of a model, loaded and answering, without Ray."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cytoray_analysis.errors import CytorayError, ModelNotFoundError
from cytoray_services.settings import Settings, load_settings
from cytoray_serving.messages import Answer, Question
from cytoray_serving.replica.options import ReplicaOptions
from cytoray_serving.replica.replica import LoadedModel, StepInput, load_model
from serving_samples import GOOD

OPTIONS = ReplicaOptions(threads=1)


@pytest.fixture(scope="module")
def settings(registered: Path) -> Settings:
    return load_settings({"CYTORAY_HOME": str(registered)})


@pytest.fixture
def model(settings: Settings) -> Iterator[LoadedModel]:
    model = load_model("nuclei/2", settings, OPTIONS)
    yield model
    model.close()


def answer(model: LoadedModel) -> Answer:
    found = asyncio.run(model.answer(Question(GOOD)))
    assert not isinstance(found, CytorayError), found
    return found


def test_an_answer_names_the_registered_model(model: LoadedModel) -> None:
    found = answer(model)
    assert (found.name, found.version, found.steps) == ("nuclei", "2", ())


def test_a_question_shares_a_batch_with_those_in_its_lane_only(model: LoadedModel) -> None:
    async def work() -> list[tuple[int, Answer | CytorayError]]:
        lanes = [0, 0, 1, 0, 2, 0, 0, 1, 0, 0, 0, 0]
        answers = await asyncio.gather(*(model.answer(Question(GOOD, lane=one)) for one in lanes))
        return list(zip(lanes, answers, strict=True))

    places: dict[int, list[tuple[int, int]]] = {0: [], 1: [], 2: []}
    for lane, found in asyncio.run(work()):
        assert isinstance(found, Answer)
        places[lane].append((found.batch, found.place))
    assert max(places[0]) > (2, 0)  # the lane with ten questions has batches
    assert max(places[1]) <= (2, 1)
    assert places[2] == [(1, 0)]
    for asked in places.values():  # each batch has one first image
        assert sum(1 / batch for batch, _ in asked) == pytest.approx(sum(place == 0 for _, place in asked))


def test_a_bundle_folder_is_served_as_it_is(bundle_folder: Path, settings: Settings) -> None:
    model = load_model(str(bundle_folder), settings, OPTIONS)
    assert answer(model).version is None
    model.close()


def test_a_model_that_does_not_exist_is_not_loaded(settings: Settings) -> None:
    with pytest.raises(ModelNotFoundError):
        load_model("nothing/1", settings, OPTIONS)


def test_a_step_gives_the_next_model_the_image_and_the_objects(
    model: LoadedModel, folders: Any, settings: Settings
) -> None:
    cells = load_model(str(folders.cells), settings, OPTIONS)

    async def work() -> tuple[StepInput | CytorayError, Answer | CytorayError]:
        given = await model.step(Question(GOOD), None, movie=False)
        assert isinstance(given, StepInput), given
        return given, await cells.answer(Question(GOOD), given)

    given, found = asyncio.run(work())
    assert isinstance(given, StepInput)
    assert isinstance(found, Answer), found
    assert found.steps == given.steps == ("nuclei/2",)
    assert found.objects == given.objects.max() > 0
    assert "step1" in found.seconds
    cells.close()


def test_a_predicted_image_goes_to_the_next_model(model: LoadedModel, folders: Any, settings: Settings) -> None:
    stain = load_model(str(folders.stain), settings, OPTIONS)
    given = asyncio.run(stain.step(Question(GOOD), None, movie=False))
    assert isinstance(given, StepInput), given
    assert given.objects is None
    assert given.image.read().dtype == "float32"
    found = asyncio.run(model.answer(Question(GOOD), given))
    assert isinstance(found, Answer), found
    assert found.steps == ("stain",)
    stain.close()


def test_requests_with_objects_go_alone(folders: Any, settings: Settings) -> None:
    server = load_model(str(folders.cells), settings, OPTIONS)

    async def ask_at_once(*questions: Question) -> list[int]:
        answers = await asyncio.gather(*(server.answer(question) for question in questions))
        return [one.batch for one in answers if isinstance(one, Answer)]

    boxes = Question(GOOD, boxes="[[10, 5, 22, 15]]")
    assert asyncio.run(ask_at_once(*[boxes] * 6)) == [1] * 6
    assert max(asyncio.run(ask_at_once(*[Question(GOOD)] * 12))) > 1
    server.close()
