"""Tasks that are ended end, also where a library swallows a cancellation."""

import asyncio

from relayer.mqtt import _end_tasks


async def swallow_first_cancellation(count):
    """As `asyncio.wait_for` of Python 3.11 does when the answer and the cancellation come together."""
    while True:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            if not count:
                raise
            count.pop()


async def fail():
    raise ValueError("of its own")


async def test_a_task_that_loses_a_cancellation_is_cancelled_again():
    tasks = [asyncio.create_task(swallow_first_cancellation(count)) for count in ([], [1], [1, 1])]
    tasks.append(asyncio.create_task(fail()))
    await asyncio.sleep(0)
    await asyncio.wait_for(_end_tasks(tasks), 20)
    assert [task.cancelled() for task in tasks] == [True, True, True, False]
    assert isinstance(tasks[3].exception(), ValueError)


async def test_ending_once_would_wait_for_ever():
    task = asyncio.create_task(swallow_first_cancellation([1]))
    await asyncio.sleep(0)
    task.cancel()
    _, pending = await asyncio.wait([task], timeout=0.2)
    assert pending == {task}
    await _end_tasks([task])
