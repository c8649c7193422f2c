"""What guards with a text model behind them share."""

from __future__ import annotations

from ..protocols import TextModel
from ..records import ModelIdentity


class ModelGuard:
    """A guard that asks a text model. `clip` 0 shows it all of an answer."""

    def __init__(self, model: TextModel, clip: int = 0, *, takes_images: bool = True) -> None:
        self._model = model
        self._clip = clip
        self.takes_images = takes_images
        self._closed = False

    @property
    def model(self) -> ModelIdentity:
        """The model that is asked."""
        return self._model.identity

    @property
    def doing(self) -> str:
        """What the model does while it cannot answer yet; nothing once it can."""
        return str(getattr(self._model, "doing", ""))

    @property
    def concurrency(self) -> int:
        """How many requests may be in flight at once."""
        return self._model.concurrency

    async def free(self) -> None:
        """Let the model give back the memory that it holds."""
        if (free := getattr(self._model, "free", None)) is not None:
            await free()

    async def aclose(self) -> None:
        """Let go of the model; several defences may have this guard, and each closes it."""
        if not self._closed:
            self._closed = True
            await self._model.aclose()
