"""What was measured, and how it compares."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

Values = dict[str, list[float | None]]


@dataclass(frozen=True)
class Comparison:
    """A number that Genie promises: a ratio of two in the same round, or one by itself."""

    what: str
    value: str
    over: str | None
    at_least: bool
    target: float

    def results(self, values: Values) -> list[float]:
        """By round, where both were measured."""
        mine = values.get(self.value, [])
        if self.over is None:
            return [one for one in mine if one is not None]
        pairs = zip(mine, values.get(self.over, []), strict=False)
        return [one / other for one, other in pairs if one is not None and other]


COMPARISONS = (
    Comparison("TCP 64 MiB / iperf3, one stream", "genie-tcp", "iperf3", True, 0.9),
    Comparison("TCP 64 B round trip / bare TCP", "genie-tcp-lat", "bare-tcp-lat", False, 1.3),
    Comparison("memif 1 MiB / testpmd", "genie-memif", "testpmd", True, 0.7),
    Comparison("memif 1 MiB sealed / testpmd", "genie-memif-sealed", "testpmd", True, 0.45),
    Comparison("memif 1 MiB / ucx_perftest", "genie-memif", "ucx", True, 1.0),
    Comparison("memif 1 MiB / NIXL", "genie-memif", "nixl", True, 1.0),
    Comparison("memif 1 MiB / Mooncake", "genie-memif", "mooncake", True, 1.0),
    Comparison("memif 64 B round trip p50, us", "genie-memif-lat", None, False, 10.0),
    Comparison("memif 64 B round trip p99, us", "genie-memif-lat-p99", None, False, 50.0),
    # By shared memory, as to a gateway: "genie-shm-lat" has no engine and stands beside it.
    Comparison("two engines 64 B round trip p50, us", "genie-engine-lat", None, False, 5.0),
)


def summary(values: list[float]) -> dict[str, float]:
    """The middle and the edges."""
    return {
        "median": statistics.median(values),
        "min": min(values),
        "max": max(values),
        "rounds": len(values),
    }


def compared(values: Values, asked: set[str]) -> list[dict]:
    """Every comparison of those that were asked for, with `met` unknown where one was not had."""
    rows = []
    for one in COMPARISONS:
        if (
            not {one.value.removesuffix("-p99"), one.over or one.value.removesuffix("-p99")}
            <= asked
        ):
            continue
        results = one.results(values)
        row = {"what": one.what, "target": one.target, "at_least": one.at_least}
        if results:
            row |= summary(results)
            middle = row["median"]
            row["met"] = middle >= one.target if one.at_least else middle <= one.target
        else:
            row |= {"met": None, "why": f"{one.over or one.value} was not measured"}
            if not [value for value in values.get(one.value, []) if value is not None]:
                row["why"] = f"{one.value} was not measured"
        rows.append(row)
    return rows


def text(report: dict) -> str:
    """For a person."""
    lines = [f"{'measured':<48}{'median':>10}{'min':>10}{'max':>10}  unit   rounds"]
    for row in report["measured"]:
        lines.append(
            f"{row['what']:<48}{row['median']:>10.3g}{row['min']:>10.3g}{row['max']:>10.3g}"
            f"  {row['unit']:<7}{row['rounds']}"
        )
    lines += [
        "",
        f"{'compared, in the same round':<48}{'median':>10}{'min':>10}{'max':>10}  target",
    ]
    for row in report["compared"]:
        sign = ">=" if row["at_least"] else "<="
        if row["met"] is None:
            lines.append(
                f"{row['what']:<48}{'-':>10}{'':>20}  {sign} {row['target']:g}  {row['why']}"
            )
            continue
        verdict = "met" if row["met"] else "MISSED"
        lines.append(
            f"{row['what']:<48}{row['median']:>10.3g}{row['min']:>10.3g}{row['max']:>10.3g}"
            f"  {sign} {row['target']:g}  {verdict}"
        )
    if report["not_measured"]:
        lines += ["", "not measured"]
        lines += [f"  {row['what']}: {row['why']}" for row in report["not_measured"]]
    if report["warnings"]:
        lines += ["", *(f"warning  {warning}" for warning in report["warnings"])]
    return "\n".join(lines)
