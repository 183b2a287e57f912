"""Tables of `serving`: requests a second, latency, processor time and memory beside peers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

Row = Mapping[str, Any]

_ABSENT = "–"
NETWORKS = ("mlp28", "cnn28", "cnn32", "resnet18", "resnet18-quarter", "resnet18-whole", "lite0")
USUAL = {"precision": "fp32", "engine": "eager-1"}
REQUESTS = ("1", "8", "32", "explain")
EXPLAINED = "engram, explained"
PEERS = ("litserve-1", "litserve-2", "litserve-1x2", "fastapi")

PREDICTIONS = (
    "network",
    "tasks",
    "images a request",
    "processes",
    "requests/s",
    "p50 / p99, ms",
    "p99 / p50",
    "processor, ms",
    "memory, MB",
    *PEERS,
    "best peer's p50 / p99",
    "its processor, ms",
    "its memory",
    "ratio",
    "ratio of processor time",
    "empty handler",
    "bare loop, images/s: network / Engram",
    "client's share",
    "others'",
)
HEATMAPS = ("network", "tasks", "predictions/s", "heatmaps/s", "p50 / p99, ms", "processor, ms", "predictions' time")


def terminal_table(row: Row) -> Table:
    """A terminal table of one row of results, with a line for each server."""
    heads = (
        "server",
        "requests/s",
        "p50",
        "p99",
        "p99/p50",
        "CPU ms",
        "PSS MB",
        "client",
        "others",
        "ratio",
        "CPU ratio",
        "rounds",
    )
    found = Table(*heads, title=heading(row), title_justify="left")
    best, cheapest = (row["servers"].get(row[which]) for which in ("best_peer", "cheapest_peer"))
    for name, figures in row["servers"].items():
        found.add_row(
            name,
            f"{figures['rate']:.1f}",
            f"{figures['p50']:.1f}",
            f"{figures['p99']:.1f}",
            f"{figures['p99'] / figures['p50']:.1f}",
            f"{figures['processor_ms']:.2f}",
            str(figures["memory_mb"]),
            f"{100 * figures['client_share']:.0f} %",
            f"{100 * figures['others_share']:.0f} %",
            f"{figures['rate'] / best['rate']:.2f}" if best else _ABSENT,
            f"{cheapest['processor_ms'] / figures['processor_ms']:.2f}" if cheapest else _ABSENT,
            " ".join(f"{rate:.0f}" for rate in figures["rates"]),
        )
    return found


def heading(row: Row) -> str:
    """What a row measured, in words."""
    bare = row["bare"]
    told = {"explain": "heatmaps and predictions", "protocol": "the native route and the Open Inference Protocol"}
    request = told.get(row["request"], f"{row['request']} images a request")
    asked = f"{row['network']}, {row['tasks']} tasks ({row['data']}), {request}, {row['connections']} connections"
    asked += f", {processes(row)} processes" if processes(row) > 1 else ""
    asked += f", {computing(row)}" if computing(row) else ""
    cost = "" if row["request"] != "explain" else f"; a heatmap takes {explaining_cost(row):.1f} predictions"
    return f"{asked}; bare loop {bare['network']:.0f}, Engram {bare['engram']:.0f} images/s{cost}"


def processes(row: Row) -> int:
    """Of Engram; earlier rows know of one alone."""
    return int(row.get("processes", 1))


def computing(row: Row) -> str:
    """What else than PyTorch's float32 computes Engram's models; empty where that does."""
    found = [str(row.get(name, usual)) for name, usual in USUAL.items() if row.get(name, usual) != usual]
    return ", ".join(found)


def explaining_cost(row: Row) -> float:
    """How many predictions a heatmap takes, over one connection."""
    return float(row["servers"]["engram"]["rate"] / row["servers"][EXPLAINED]["rate"])


def table(rows: Sequence[Row]) -> str:
    """The tables in Markdown, empty without rows; of several rows that measured the same, the last."""
    mine = [row for row in rows if row.get("benchmark") == "serving"]
    last = {(row["network"], row["tasks"], row["request"], processes(row), computing(row)): row for row in mine}

    def place(row: Row) -> tuple[int, int, int, int, str]:
        request = row["request"]
        images = int(request) if request.isdigit() else 100
        return NETWORKS.index(row["network"]), images, row["tasks"], processes(row), computing(row)

    ordered = sorted(last.values(), key=place)
    predictions = [_predictions(row) for row in ordered if row["request"].isdigit()]
    heatmaps = [_heatmaps(row) for row in ordered if row["request"] == "explain"]
    made = [*([_markdown(PREDICTIONS, predictions)] if predictions else [])]
    made += [_markdown(HEATMAPS, heatmaps)] if heatmaps else []
    return "\n\n".join(["#### serving", *made]) if made else ""


def _predictions(row: Row) -> list[str]:
    servers, bare = row["servers"], row["bare"]
    own, best = servers["engram"], servers.get(row["best_peer"])
    return [
        row["network"] + (f" ({computing(row)})" if computing(row) else ""),
        str(row["tasks"]),
        row["request"],
        str(processes(row)),
        f"{own['rate']:.0f}",
        _quantiles(own),
        f"{own['p99'] / own['p50']:.1f}",
        f"{own['processor_ms']:.2f}",
        str(own["memory_mb"]),
        *(_rate(servers.get(name)) for name in PEERS),
        _quantiles(best) if best else _ABSENT,
        f"{best['processor_ms']:.2f}" if best else _ABSENT,
        str(best["memory_mb"]) if best else _ABSENT,
        f"**{row['ratio']:.2f}**" if row["ratio"] is not None else _ABSENT,
        f"{row['processor_ratio']:.2f}" if row["processor_ratio"] is not None else _ABSENT,
        _rate(servers.get("empty")),
        f"{bare['network']:.0f} / {bare['engram']:.0f}",
        f"{100 * own['client_share']:.0f} %",
        f"{100 * own['others_share']:.0f} %",
    ]


def _heatmaps(row: Row) -> list[str]:
    own, explained = row["servers"]["engram"], row["servers"][EXPLAINED]
    rates = f"{own['rate']:.0f}", f"{explained['rate']:.1f}"
    cost = f"**{explaining_cost(row):.1f}**"
    return [
        row["network"],
        str(row["tasks"]),
        *rates,
        _quantiles(explained),
        f"{explained['processor_ms']:.1f}",
        cost,
    ]


def _quantiles(figures: Row) -> str:
    return f"{figures['p50']:.1f} / {figures['p99']:.1f}"


def _rate(figures: Row | None) -> str:
    return f"{figures['rate']:.0f}" if figures else _ABSENT


def _markdown(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rule = "|" + "---|" * len(head)
    return "\n".join(["| " + " | ".join(head) + " |", rule, *("| " + " | ".join(line) + " |" for line in lines)])
