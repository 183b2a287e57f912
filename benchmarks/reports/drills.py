"""Table of drills: what the last run of each did, what it found, and its number of faults."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]


def table(rows: Sequence[Row]) -> str:
    """The table in Markdown; empty if no drill was run."""
    last = {(row["drill"], row.get("reader")): row for row in rows if row.get("drill") in DRILLS}
    if not last:
        return ""
    lines = ["| drill | done | found | faults | command | commit |", "|---|---|---|---|---|---|"]
    for drill, describe in DRILLS.items():
        for row in (row for (name, _), row in last.items() if name == drill):
            done, found = describe(row)
            command = row["command"].split(" --out")[0]
            lines.append(f"| {drill} | {done} | {found} | {_faults(row)} | `{command}` | {row['commit']} |")
    return "\n".join(["#### Drills", "", *lines])


def _faults(row: Row) -> int:
    """Number of faults, which drills record under different names."""
    counted = sum(row["failures"].values()) if row["drill"] == "schema" else len(row.get("faults", ()))
    return counted + len(row.get("crashes_hangs", ())) + int(bool(row.get("status")))


def _kills(row: Row) -> tuple[str, str]:
    kinds = ", ".join(f"{kind} {times}" for kind, times in sorted(row["kinds"].items()))
    done = f"{row['kills']} kills in {row['seconds']:.0f} s ({kinds}) while tasks are learned and questions asked"
    jobs = f"{row['jobs_accepted']} jobs accepted, {row['jobs_succeeded']} succeeded"
    return done, f"{jobs}; {row['predictions']:,} predictions, {row['predictions_wrong']} other than they were"


def _process_kills(row: Row) -> tuple[str, str]:
    killed = f"{row['kills']} kills of one of {row['processes']} processes of a service"
    found = f"{row['answers']:,} predictions, {row['told']} answered 503, {row['failures']} broken"
    times = f"the slowest {row['slowest']:.2f} s; a process was back within {row['slowest_start']} s"
    return f"{killed}, while {row['connections']} connections predict", f"{found}; {times}"


def _storage(row: Row) -> tuple[str, str]:
    by_fault = row["s3"]["by_fault"]
    requests, failed = (sum(one[name] for one in by_fault.values()) for name in ("requests", "faults"))
    jobs = sum(sum(one["jobs"].values()) for one in by_fault.values())
    answers = sum(sum(one["predictions"].values()) for one in by_fault.values())
    done = (
        f"{row['objects']['rounds']} objects harmed or deleted; S3 failing in {len(by_fault)} ways, {failed} of "
        f"{requests + failed:,} requests; {row['disk']['kind']}, full during commits"
    )
    answered = sum(one["predictions"].get("200", 0) for one in by_fault.values())
    return done, f"{jobs} jobs came to their end; {answered:,} of {answers:,} predictions answered meanwhile"


def _redis_gone(row: Row) -> tuple[str, str]:
    done = f"no Redis for {row['seconds']:.0f} s while {row['connections']} connections predict and a task is learned"
    refused = ", ".join(
        f"{times} answered {answer.removesuffix(' True')}" for answer, times in row["submissions"].items()
    )
    found = f"{row['answers']:,} predictions, {row['failures']} failed, the slowest {row['slowest']:.2f} s"
    return done, f"{found}; submissions: {refused}; the next one accepted {row['accepted_after']} s after its return"


def _silence(row: Row) -> tuple[str, str]:
    rounds = row["rounds"].values()
    done = (
        f"connections to Redis that say nothing for up to {row['seconds']:.0f} s, and then go on or are dead for ever, "
        f"over TCP and a Unix socket, {len(rounds)} rounds, while {row['connections']} connections predict"
    )
    answers, failures = sum(one["answers"] for one in rounds), sum(one["failures"] for one in rounds)
    slowest = max(one["taken_after"] for one in rounds)
    return done, f"{answers:,} predictions, {failures} failed; a new job taken {slowest} s after at the latest"


def _saturation(row: Row) -> tuple[str, str]:
    asked = f"{row['clients']} clients for {row['minutes']:.0f} minutes"
    done = f"{asked}, {row['requests']:,} requests, {sum(row['jobs'].values())} tasks learned beside them"
    (middle, late), refused = row["milliseconds_p50_p99"]["predict"], sum(row["refused"].values())
    slopes = "; ".join(
        f"{name} {row[name]['rss_mib'][-1]:.0f} MiB, growing by {slope:.1f} ± {error:.1f} MiB an hour"
        for name in ("service", "worker")
        for slope, error in [row[name]["rss_mib_per_hour"]]
    )
    answered = f"predictions answered in {middle:.0f} ms (p50) and {late:.0f} ms (p99)"
    return done, f"{refused:,} refused for want of room; {answered}; {slopes}"


def _schema(row: Row) -> tuple[str, str]:
    done = f"{row['cases']:,} made-up requests for {row['operations']} operations, all checks"
    return done, f"{sum(row['failures'].values())} answers that the document does not have"


def _fuzz(row: Row) -> tuple[str, str]:
    done = f"the {row['reader']} reader for {row['seconds']} s, {row['inputs']:,} inputs"
    broken = f"{len(row['crashes_hangs'])} crashes and hangs"
    return done, f"{broken}; {row['growth_kib']} KiB more after {row['replayed']:,} inputs were read again"


DRILLS: Mapping[str, Callable[[Row], tuple[str, str]]] = {
    "kills": _kills,
    "process_kills": _process_kills,
    "storage": _storage,
    "redis_gone": _redis_gone,
    "silence": _silence,
    "saturation": _saturation,
    "schema": _schema,
    "fuzz": _fuzz,
}
"""Description of each drill's figures: what was done, and what was found."""
