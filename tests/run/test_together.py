"""Asking together: few calls for many, and each is told what concerns it."""

from collections.abc import Mapping, Sequence

import anyio
import pytest

from pipeline.errors import StoreError
from pipeline.run.together import Together

pytestmark = pytest.mark.anyio


class Called:
    """Answers with the length of what it is asked for, once it is let go on."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.go_on = anyio.Event()

    async def __call__(self, keys: Sequence[str]) -> Mapping[str, int]:
        """Answer."""
        self.calls.append(sorted(keys))
        await self.go_on.wait()
        if "broken" in keys:
            raise StoreError("broken")
        return {key: len(key) for key in keys if key != "unknown"}


async def test_what_comes_during_a_call_goes_with_the_next_one() -> None:
    """A thousand questions cost a few calls; nobody is told another's answer."""
    called, answers = Called(), dict[str, int | None]()
    together = Together(called)

    async def ask(key: str) -> None:
        answers[key] = await together.ask(key)

    async with anyio.create_task_group() as tasks:
        for key in ("a", "bb", "ccc", "unknown"):
            tasks.start_soon(ask, key)
            await anyio.wait_all_tasks_blocked()
        called.go_on.set()

    assert called.calls == [["a"], ["bb", "ccc", "unknown"]]
    assert answers == {"a": 1, "bb": 2, "ccc": 3, "unknown": None}


async def test_two_who_ask_for_the_same_get_an_answer_each() -> None:
    """A moment of an upstream is for one request."""
    called = Called()
    called.go_on.set()
    together = Together(called)

    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(together.ask, "same")

    assert called.calls == [["same"]] * 3


async def test_all_of_a_call_that_failed_are_told() -> None:
    """And whoever asks afterwards is not."""
    called, failed = Called(), list[str]()
    together = Together(called)

    async def ask(key: str) -> None:
        try:
            await together.ask(key)
        except StoreError:
            failed.append(key)

    async with anyio.create_task_group() as tasks:
        for key in ("first", "broken", "other"):
            tasks.start_soon(ask, key)
            await anyio.wait_all_tasks_blocked()
        called.go_on.set()

    assert sorted(failed) == ["broken", "other"]
    assert await together.ask("later") == len("later")


async def test_who_goes_away_takes_nobody_with_it() -> None:
    """Who asks for all may be cancelled: the others are asked for again, and it is not."""
    called, answers, scope = Called(), list[int | None](), anyio.CancelScope()
    together = Together(called)

    async def ask(key: str, scope: anyio.CancelScope) -> None:
        with scope:
            answers.append(await together.ask(key))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ask, "first", anyio.CancelScope())
        await anyio.wait_all_tasks_blocked()
        tasks.start_soon(ask, "leaves", scope)
        await anyio.wait_all_tasks_blocked()
        tasks.start_soon(ask, "stays", anyio.CancelScope())
        await anyio.wait_all_tasks_blocked()
        called.go_on.set()
        called.go_on = anyio.Event()
        await anyio.wait_all_tasks_blocked()  # now the second asks for both
        scope.cancel()
        await anyio.wait_all_tasks_blocked()
        called.go_on.set()

    assert called.calls == [["first"], ["leaves", "stays"], ["stays"]]
    assert answers == [len("first"), len("stays")]
