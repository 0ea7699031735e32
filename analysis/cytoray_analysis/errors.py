"""The one error tree of Cytoray.

Every error that a caller can cause or correct is a :class:`CytorayError`, and also the standard error that it is::

    CytorayError
    ├── InputError                  the caller's mistake (exit status 2, HTTP 4xx)
    │   ├── ImageError              (ValueError, 422)         an image that cannot be used
    │   │   ├── UnreadableImageError    (422)                 not an image, truncated, or of an unknown format
    │   │   ├── AxesError               (422)                 axes or channels that the model does not accept
    │   │   └── ImageTooLargeError      (413)                 more pixels or bytes than the limit
    │   ├── DatasetError            (ValueError, 422)         a data set that would make training useless
    │   ├── RecipeError             (ValueError, 422)         an unknown field or a value out of range
    │   ├── BundleError             (ValueError, 422)         a model folder that is damaged or has other files
    │   ├── ModelNotFoundError      (LookupError, 404)        no such model, version, alias or bundle folder
    │   ├── MissingFileError        (FileNotFoundError, 404)  a path that does not exist
    │   ├── JobNotFoundError        (LookupError, 404)        no such job
    │   ├── DatasetNotFoundError    (LookupError, 404)        no such data set, or item of one
    │   ├── ConflictError           (ValueError, 409)         another person has changed it, or it exists already
    │   ├── NotAcceptableError      (ValueError, 406)         an answer format that is not supported
    │   ├── UnauthorizedError       (PermissionError, 401)    no token, or one that is not valid
    │   ├── ForbiddenError          (PermissionError, 403)    a token without the scope, a place that is not allowed
    │   ├── DeadlineError           (TimeoutError, 408)       the caller's timeout has expired
    │   └── RequestError            (ValueError, 400)         any other malformed request or argument
    └── PlatformError               (RuntimeError, 503)       the machine or a service failed, not the caller
        ├── OverloadedError         (429)                     the queue is full
        ├── ReplicaLostError        (503)                     the process that was answering ended
        └── TrainingError           (500)                     a training run that failed
            └── UntrainableError    (500)                     a failure due to the recipe, which would recur
"""

from __future__ import annotations

from typing import Any, ClassVar

from cytoray_analysis.uris import without_secrets


class CytorayError(Exception):
    """An error with a message for people and fields for programs; secrets are removed from its addresses.

    Parameters
    ----------
    message
        What was expected and what was found.
    field
        The path of the offending field, file or argument, such as ``training.epochs``.
    hint
        How to correct it.
    """

    status: ClassVar[int] = 500
    exit_status: ClassVar[int] = 1

    def __init__(self, message: str, *, field: str | None = None, hint: str | None = None) -> None:
        message = without_secrets(message)
        super().__init__(message)
        self.message = message
        self.field = None if field is None else without_secrets(field)
        self.hint = None if hint is None else without_secrets(hint)

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
    """An image that cannot be used."""

    status = 422


class UnreadableImageError(ImageError):
    """A file that is not an image, is truncated, or has a format without an installed reader."""


class AxesError(ImageError):
    """An image whose axes or channels the model does not accept."""


class ImageTooLargeError(ImageError):
    """An image with more pixels or bytes than the limit."""

    status = 413


class UnanswerableError(ImageError):
    """A request during which two processes ended, one after the other, without another possible reason."""


class DatasetError(InputError, ValueError):
    """A data set that would make training useless."""

    status = 422


class RecipeError(InputError, ValueError):
    """A recipe with an unknown field or a value out of range."""

    status = 422


class BundleError(InputError, ValueError):
    """A model folder that is damaged or contains files that a bundle must not contain."""

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


class DatasetNotFoundError(InputError, LookupError):
    """No data set, or no item of one, of that name."""

    status = 404


class ConflictError(InputError, ValueError):
    """What the caller wants to change was changed by another person, or exists already."""

    status = 409


class UnauthorizedError(InputError, PermissionError):
    """No token, or one that is not valid."""

    status = 401


class ForbiddenError(InputError, PermissionError):
    """A token without the required scope, or a location that is not allowed."""

    status = 403


class DeadlineError(InputError, TimeoutError):
    """The caller's timeout has expired; the work was cancelled."""

    status = 408


class NotAcceptableError(InputError, ValueError):
    """An answer format that is not supported."""

    status = 406


class RequestError(InputError, ValueError):
    """Any other malformed request or argument."""

    status = 400


class PlatformError(CytorayError, RuntimeError):
    """The machine or a service failed, not the caller."""

    status = 503


class OverloadedError(PlatformError):
    """The queue is full; the same request can be sent again later.

    Attributes
    ----------
    retry_after
        Whole seconds after which to retry.
    """

    status = 429
    retry_after = 1

    def __reduce__(self) -> tuple[Any, ...]:
        return *super().__reduce__(), {"retry_after": self.retry_after}


class ReplicaLostError(PlatformError):
    """The process that was answering ended; another one can answer.

    Attributes
    ----------
    at_work
        Whether it had started the request, which may be the reason for its end.
    """

    at_work = False


class TrainingError(PlatformError):
    """A training run that failed."""

    status = 500


class UntrainableError(TrainingError):
    """A training run that failed because of its recipe: numbers overflow, or a step exceeds the memory.

    It would fail again; any other :class:`TrainingError` does not count against the recipe.
    """
