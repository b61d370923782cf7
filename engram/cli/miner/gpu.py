"""`engram gpu`: the GPUs of this machine, as a miner publishes them."""

from typing import Annotated

import trio
from cyclopts import Parameter

from engram.cli import output
from engram.cli.failures import CommandFailed, Exit
from engram.cli.options import SHOW, Show
from engram.gpu import Gpu, GpuInfo, GpuReader
from engram.gpu.model import GIB
from engram.gpu.requirement import FORM, parse


def gpu(
    *,
    require: Annotated[
        str | None, Parameter(help=f"Conditions: {FORM}. Fields: count, driver, cuda, vram_gb, name.")
    ] = None,
    show: Show = SHOW,
) -> int:
    """Show this machine's GPUs."""
    try:
        requirements = parse(require) if require is not None else ()
    except ValueError as error:
        raise CommandFailed(f"--require: {error}", Exit.USAGE) from None
    info = trio.run(GpuReader().read)
    if show.json:
        output.document(info)
    else:
        _show(info)
    unmet = [why for requirement in requirements if (why := requirement.unmet(info)) is not None]
    for why in unmet:
        output.complain(f"not met: {why}")
    return Exit.FAILED if unmet else Exit.DONE


def _show(info: GpuInfo) -> None:
    if info.gpu_count == 0:
        output.say(f"No GPU: {info.reason}.")
        return
    output.say(f"Driver {info.driver_version or 'unknown'}, CUDA {info.cuda_version or 'unknown'}")
    titles = ["GPU", "NAME", "MEMORY", "FREE", "BUSY", "PROCESSES", "MIG"]
    output.table([line for each in info.gpus for line in _lines(each)], titles)
    for each in info.gpus:
        for field, why in each.reasons.items():
            output.say(f"GPU {each.index}: {field} is unknown: {why}.")


def _lines(each: Gpu) -> list[list[str]]:
    mig = {None: "unknown", False: "off", True: f"{len(each.mig_instances)} instances"}[each.mig_enabled]
    busy = "" if each.utilization_percent is None else f"{each.utilization_percent} %"
    processes = "" if each.process_count is None else str(each.process_count)
    whole = [
        str(each.index),
        each.name or "unknown",
        _gib(each.memory_total_bytes),
        _gib(each.memory_free_bytes),
        busy,
        processes,
        mig,
    ]
    instances = [
        [
            f"{each.index}.{place}",
            one.name or "unknown",
            _gib(one.memory_total_bytes),
            _gib(one.memory_free_bytes),
            *[""] * 3,
        ]
        for place, one in enumerate(each.mig_instances)
    ]
    return [whole, *instances]


def _gib(value: int | None) -> str:
    return "" if value is None else f"{value / GIB:.1f} GiB"
