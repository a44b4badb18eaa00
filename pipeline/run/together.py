"""One call for all who ask at about the same time."""

from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Generic, TypeVar

import anyio

Key = TypeVar("Key", bound=Hashable)
Answer = TypeVar("Answer")


@dataclass(slots=True, eq=False)
class _Asking(Generic[Key, Answer]):
    key: Key
    is_answered: bool = False
    answer: Answer | None = None
    failure: Exception | None = None


class Together(Generic[Key, Answer]):
    """Asks for all who wait: what comes while a call is under way goes with the next one.

    So nobody waits for company, and a thousand who ask at once cost a few calls. *ask_for_all* is
    given what they ask for, and answers by that; who is not in its answer is told None. Of those
    who ask for the same each gets an answer of its own, by calls one after the other.
    """

    def __init__(
        self, ask_for_all: Callable[[Sequence[Key]], Awaitable[Mapping[Key, Answer]]]
    ) -> None:
        self._ask_for_all = ask_for_all
        self._waiting: list[_Asking[Key, Answer]] = []
        self._one = anyio.Lock()

    async def ask(self, key: Key) -> Answer | None:
        """Ask, and wait for the answer.

        Raises:
            Exception: what the call raised in which this was asked.
        """
        ours = _Asking[Key, Answer](key)
        self._waiting.append(ours)
        try:
            async with self._one:
                if not ours.is_answered:
                    await self._call(ours)
        finally:
            with suppress(ValueError):  # who does not wait any more is not asked for
                self._waiting.remove(ours)
        if ours.failure is not None:
            raise ours.failure
        return ours.answer

    async def _call(self, ours: _Asking[Key, Answer]) -> None:
        """Ask for all who wait by now, *ours* among them."""
        group = {each.key: each for each in reversed(self._waiting)}
        group[ours.key] = ours
        self._waiting = [each for each in self._waiting if group[each.key] is not each]
        try:
            answers = await self._ask_for_all(list(group))
        except Exception as exc:  # noqa: BLE001 - each of them raises it
            for each in group.values():
                each.failure, each.is_answered = exc, True
        except BaseException:  # cancelled: that was for us alone
            self._waiting[:0] = [each for each in group.values() if each is not ours]
            raise
        else:
            for each in group.values():
                each.answer, each.is_answered = answers.get(each.key), True
