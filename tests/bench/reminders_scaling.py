"""The reminder path with 1, 2 and 4 dispatchers and senders: throughput, and nothing lost or doubled as they change.

Between two sizes a herd is under way: partitions and slots change hands in the middle of work, upwards and back down.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

from tests.bench.frame import Ground, Measure, Outcome
from tests.bench.reminders import Field, Found
from tests.bench.reminders_ours import Ours
from tests.bench.reminders_runs import Ran

SIZES = (1, 2, 4)


async def measure(ground: Ground) -> Outcome:
    """Throughput at each size, one after the other on one stack; every change takes place under load."""
    async with Field.on(ground) as field, AsyncExitStack() as up:
        side = await up.enter_async_context(field.ours(up.enter_context(field.stack())))
        sized: list[Found] = []
        changes: list[Ran] = []
        for count in SIZES:
            if sized:
                changes.append(await _change(field, sized[-1], side, count))
            first = sized[0] if sized else await field.fill(side, field.sizes.few)
            here = Found(first.course, first.pending, first.size) if sized else first
            await field.herds(here)
            sized.append(here)
        changes.append(await _change(field, sized[-1], side, SIZES[0]))
        course = sized[0].course
        unkept = course.sent - await course.kept()
    one = sized[0].throughput.runs
    measures = [
        Measure(f"{count} and {count}", "reminders/s", found.throughput.runs)
        for count, found in zip(SIZES, sized, strict=True)
    ]
    for count, found in zip(SIZES[1:], sized[1:], strict=True):
        ratios = [more / first for more, first in zip(found.throughput.runs, one, strict=True)]
        measures.append(Measure(f"{count} and {count} / 1 and 1", "ratio", ratios))
    measures.append(Measure("herds while the size changed", "reminders/s", [ran.rate for ran in changes]))
    runs = [*changes, *(ran for found in sized for ran in found.herds)]
    again, early = sum(ran.again for ran in runs), sum(ran.early for ran in runs)
    notes = [
        f"{course.scheduled:,} reminders through {len(changes)} changes of size under load: "
        f"{course.scheduled - course.sent} lost, none taken twice ({again} were asked for again under their one key, "
        f"which the gateway takes once), {early} early, {unkept} without an outcome kept.",
        "Broker, store, gateway and all of these processes share two cores, so more processes can add little here: "
        "what is shown is that they share the work, and that nothing is lost or doubled as they change.",
    ]
    return Outcome("scaling", measures, {}, notes)


async def _change(field: Field, found: Found, side: Ours, count: int) -> Ran:
    """Change to so many of each while a herd is under way."""
    course, size = found.course, found.size
    herd = asyncio.ensure_future(course.herd(size, within=4 * field.sizes.within))
    try:
        await course.begun.wait()
        await field.gateway.wait(size // 10, field.sizes.within)
        await side.scale(count, count)
        ran = await herd
    finally:
        herd.cancel()
    field.ground.say(f"to {count} and {count} under load: {ran.rate:,.0f}/s")
    return ran
