"""What the pages say of models: which there are, which one answered, whether it can go on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from app.domain.errors import UnknownModel
from app.domain.messages import Message, Role, Status
from app.models.registry import ModelRegistry

_TOO_LONG: Final = "answer_too_long"


class ModelChoice:
    """The models as a person chooses among them."""

    def __init__(self, models: ModelRegistry) -> None:
        """Take the models; with a single one there is nothing to choose, and nothing to say."""
        self._models = models
        self.items = models.describe()
        self.is_offered = len(self.items) > 1
        self._names = {one.id: one.name for one in self.items}
        self._found_to_go_on: frozenset[str] = frozenset()

    def learn(self, going_on: frozenset[str]) -> None:
        """Take the models that workers found to go on; a web node asks no model's server."""
        self._found_to_go_on = going_on

    def chosen(self, messages: Sequence[Message], wanted: str = "") -> str:
        """Give the model that the form names at first.

        It is the one that was wanted last, in the form or by the latest answer; where this
        installation no longer has that, it is the default.
        """
        answers = [message.model for message in messages if message.role is Role.ASSISTANT]
        latest = wanted or (answers[-1] if answers else None)
        return latest if latest in self._names else self._models.default

    def caption(self, message: Message) -> str | None:
        """Say who gave an answer; None where it goes without saying."""
        if not self.is_offered or message.model is None:
            return None
        return self._names.get(message.model, message.model)

    def can_go_on(self, message: Message) -> bool:
        """Say whether an answer ended before its end, and its model can go on from there."""
        if not message.content or message.model is None:
            return False
        if message.status is Status.COMPLETE and message.error is None:
            return False
        # Ended by our own limit, which counts the text that is there: nothing would be added.
        if message.error is not None and message.error.code == _TOO_LONG:
            return False
        try:
            model = self._models.get(message.model)
        except UnknownModel:
            return False
        return model.continues or message.model in self._found_to_go_on
