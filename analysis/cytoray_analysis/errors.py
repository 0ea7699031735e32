"""The one error tree of Cytoray.

Every error that a caller can cause or correct is a :class:`CytorayError`, and also the standard error that it is::

    CytorayError
    ├── InputError                  the caller's mistake (exit status 2, HTTP 4xx)
    │   ├── ImageError              (ValueError, 422)          an image that cannot be used as it is
    │   │   ├── UnreadableImageError    (422)                  not an image, truncated, or of an unknown format
    │   │   ├── AxesError               (422)                  axes or channels other than what the model takes
    │   │   └── ImageTooLargeError      (413)                  more pixels or bytes than the limit
    │   ├── DatasetError            (ValueError, 422)          a data set that would ruin a training
    │   ├── RecipeError             (ValueError, 422)          an unknown field or a value out of range
    │   ├── BundleError             (ValueError, 422)          a model folder that is damaged or holds foreign files
    │   ├── ModelNotFoundError      (LookupError, 404)         no such model, version, alias or bundle folder
    │   ├── MissingFileError        (FileNotFoundError, 404)   a path that does not exist
    │   ├── JobNotFoundError        (LookupError, 404)         no such job
    │   ├── NotAcceptableError      (ValueError, 406)          an answer format that nothing here writes
    │   ├── UnauthorizedError       (PermissionError, 401)     no token, or one that is not valid
    │   ├── ForbiddenError          (PermissionError, 403)     a token without the scope, a place that is not allowed
    │   ├── DeadlineError           (TimeoutError, 408)        the time that the caller gave has passed
    │   └── RequestError            (ValueError, 400)          any other malformed request or argument
    └── PlatformError               (RuntimeError, 503)        the machine or a service failed, not the caller
        ├── OverloadedError         (429)                      as much is waiting as may wait
        ├── ReplicaLostError        (503)                      the process that was answering ended
        └── TrainingError           (500)                      a training that could not go on
            └── UntrainableError    (500)                      one whose recipe is why, and which would fail again
"""

from __future__ import annotations

from typing import Any, ClassVar


class CytorayError(Exception):
    """An error with a sentence for people and fields for programs.

    Parameters
    ----------
    message
        What was expected and what came.
    field
        The path of the offending field, file or argument, such as ``training.epochs``.
    hint
        What to do about it.
    """

    status: ClassVar[int] = 500
    exit_status: ClassVar[int] = 1

    def __init__(self, message: str, *, field: str | None = None, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        self.hint = hint

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> tuple[Any, ...]:
        # Errors cross process borders inside Ray; keyword arguments would be lost by the default.
        return _rebuild, (type(self), self.message, self.field, self.hint)

    def describe(self) -> dict[str, Any]:
        """Return the error as a JSON object: ``{error, message, field?, hint?}``."""
        body: dict[str, Any] = {"error": type(self).__name__, "message": self.message}
        if self.field is not None:
            body["field"] = self.field
        if self.hint is not None:
            body["hint"] = self.hint
        return body


def _rebuild(kind: type[CytorayError], message: str, field: str | None, hint: str | None) -> CytorayError:
    return kind(message, field=field, hint=hint)


class InputError(CytorayError):
    """The caller's mistake."""

    status = 400
    exit_status = 2


class ImageError(InputError, ValueError):
    """An image that cannot be used as it is."""

    status = 422


class UnreadableImageError(ImageError):
    """A file that is no image, is truncated, or has a format that no installed reader knows."""


class AxesError(ImageError):
    """An image whose axes or channels are not those that the model takes."""


class ImageTooLargeError(ImageError):
    """An image with more pixels or bytes than the limit."""

    status = 413


class DatasetError(InputError, ValueError):
    """A data set that would ruin a training."""

    status = 422


class RecipeError(InputError, ValueError):
    """A recipe with an unknown field or a value out of range."""

    status = 422


class BundleError(InputError, ValueError):
    """A model folder that is damaged or holds files that a bundle must not hold."""

    status = 422


class ModelNotFoundError(InputError, LookupError):
    """No model, version, alias or bundle folder of that name."""

    status = 404


class MissingFileError(InputError, FileNotFoundError):
    """A path that does not exist."""

    status = 404


class JobNotFoundError(InputError, LookupError):
    """No job of that name."""

    status = 404


class UnauthorizedError(InputError, PermissionError):
    """No token, or one that is not valid."""

    status = 401


class ForbiddenError(InputError, PermissionError):
    """A token without the scope that is needed, or a place that nobody may name."""

    status = 403


class DeadlineError(InputError, TimeoutError):
    """The time that the caller gave has passed; the work was cancelled."""

    status = 408


class NotAcceptableError(InputError, ValueError):
    """An answer format that nothing here writes."""

    status = 406


class RequestError(InputError, ValueError):
    """Any other malformed request or argument."""

    status = 400


class PlatformError(CytorayError, RuntimeError):
    """The machine or a service failed, not the caller."""

    status = 503


class OverloadedError(PlatformError):
    """As much is waiting as may wait; the same request can be sent again later.

    Attributes
    ----------
    retry_after
        Whole seconds after which that is worth while.
    """

    status = 429
    retry_after = 1


class ReplicaLostError(PlatformError):
    """The process that was answering ended; another one can be asked."""


class TrainingError(PlatformError):
    """A training that could not go on."""

    status = 500


class UntrainableError(TrainingError):
    """A training that could not go on because of its recipe: numbers overflow, or a step exceeds the memory.

    It would fail again, which is a verdict on the recipe; any other :class:`TrainingError` is none.
    """
