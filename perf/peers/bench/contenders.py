"""Who is measured, and how."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .install import Place
from .processes import MeasureError, Other, beside, run

MEBIBYTE = 1 << 20
#: Of testpmd, as much as Genie carries in one.
FRAME_BYTES = 8192
#: Beyond the time that is measured: to start, to warm up, to end.
SPARE = 30.0


@dataclass(frozen=True)
class Contender:
    """One that is measured in each round."""

    name: str
    what: str
    unit: str
    #: Gives values by name; the contender's own name, and others beside it.
    measure: Callable[[], dict[str, float]]


class Contenders:
    """All of them."""

    def __init__(self, genie: Path, place: Place, seconds: float) -> None:
        self._genie = genie
        self._place = place
        self._seconds = seconds
        self._port = 20_000 + os.getpid() % 20_000

    def all(self) -> list[Contender]:
        """In the order of the table."""
        gbit, micros = "Gbit/s", "us"
        return [
            Contender("genie-tcp", "genie-perf TCP, 64 MiB", gbit, self._genie_tcp),
            Contender("iperf3", "iperf3 TCP, one stream", gbit, self._iperf3),
            Contender(
                "genie-tcp-lat", "genie-perf TCP, 64 B there and back", micros, self._lat("tcp")
            ),
            Contender("bare-tcp-lat", "bare TCP, 64 B there and back", micros, self._bare),
            Contender("genie-memif", "genie-perf memif, 1 MiB", gbit, self._memif("off")),
            Contender(
                "genie-memif-sealed", "genie-perf memif, 1 MiB, sealed", gbit, self._memif("on")
            ),
            Contender("testpmd", "testpmd memif, 8 KiB frames", gbit, self._testpmd),
            Contender("ucx", "ucx_perftest TCP, put 1 MiB", gbit, self._ucx),
            Contender("nixl", "NIXL over UCX TCP, write 1 MiB", gbit, self._nixl),
            Contender("mooncake", "Mooncake TCP, write 1 MiB", gbit, self._mooncake),
            Contender(
                "genie-memif-lat",
                "genie-perf memif, 64 B there and back",
                micros,
                self._lat("memif"),
            ),
            Contender(
                "genie-shm-lat",
                "genie-perf channel alone, 64 B there and back",
                micros,
                self._lat("shm"),
            ),
            Contender(
                "genie-engine-lat",
                "genie-perf two engines, 64 B there and back",
                micros,
                self._lat("engine"),
            ),
        ]

    def _perf(self, arguments: list[str]) -> dict:
        command = [str(self._genie), *arguments, "--time", str(self._seconds), "--json", "-"]
        text = run(command, self._seconds + SPARE)
        # DPDK's drivers write to standard error, which comes along.
        begin = text.find("{\n")
        try:
            report, _ = json.JSONDecoder().raw_decode(text[begin:])
            return report["results"][0]
        except (ValueError, LookupError) as error:
            raise MeasureError(f"genie-perf wrote no report: {text[-200:]}") from error

    def _pinned(self) -> list[str]:
        cores = sorted(os.sched_getaffinity(0))
        return ["--cores", f"{cores[0]},{cores[1]}"] if len(cores) > 1 else []

    def _genie_tcp(self) -> dict[str, float]:
        result = self._perf(["local", "--link", "tcp", "bw", "--size", "64M"])
        return {"genie-tcp": result["gbit_per_s"]}

    def _memif(self, seal: str) -> Callable[[], dict[str, float]]:
        name = "genie-memif" if seal == "off" else "genie-memif-sealed"

        def measure() -> dict[str, float]:
            link = ["local", "--link", "memif", "bw", "--size", "1M", "--seal", seal]
            return {name: self._perf([*link, *self._pinned()])["gbit_per_s"]}

        return measure

    def _lat(self, link: str) -> Callable[[], dict[str, float]]:
        def measure() -> dict[str, float]:
            # TCP is measured as the scheduler places it, like the bare socket beside it.
            pinned = [] if link == "tcp" else self._pinned()
            latency = self._perf(["local", "--link", link, "lat", *pinned])["latency_us"]
            return {f"genie-{link}-lat": latency["p50"], f"genie-{link}-lat-p99": latency["p99"]}

        return measure

    def _bare(self) -> dict[str, float]:
        return {"bare-tcp-lat": self._perf(["bare-tcp"])["latency_us"]["p50"]}

    def _next_port(self) -> str:
        # A port that was just used may still be held by the kernel.
        self._port += 1
        return str(self._port)

    def _iperf3(self) -> dict[str, float]:
        iperf3 = self._place.program("iperf3", "iperf3")
        port = self._next_port()
        with beside([iperf3, "-s", "-1", "-p", port]) as server:
            server.wait_listening(int(port), 10)
            client = [
                iperf3,
                "-c",
                "127.0.0.1",
                "-p",
                port,
                "-t",
                f"{max(1, round(self._seconds))}",
            ]
            report = json.loads(run([*client, "-O", "1", "-J"], self._seconds + SPARE))
        return {"iperf3": report["end"]["sum_received"]["bits_per_second"] / 1e9}

    def _ucx(self) -> dict[str, float]:
        package = self._place.package("libucx-cu12") / "libucx"
        program, port = str(package / "bin" / "ucx_perftest"), self._next_port()
        env = {"LD_LIBRARY_PATH": str(package / "lib"), "UCX_LOG_LEVEL": "error", **_UCX_TCP}
        # It counts messages, not seconds: about 30 Gbit/s make this many.
        count = str(max(500, round(self._seconds * 3500)))
        with beside([program, "-p", port], env) as server:
            server.wait_listening(int(port), 10)
            test = ["-t", "ucp_put_bw", "-s", str(MEBIBYTE), "-n", count, "-w", "300"]
            text = run([program, "127.0.0.1", "-p", port, *test], self._seconds * 20 + SPARE, env)
        final = re.search(r"^Final:\s+(.*)$", text, re.MULTILINE)
        if not final:
            raise MeasureError("ucx_perftest wrote no result")
        return {"ucx": float(final[1].split()[-1]) * MEBIBYTE * 8 / 1e9}

    def _nixl(self) -> dict[str, float]:
        self._place.package("nixl-cu12")
        script = Path(__file__).with_name("nixl_peer.py")
        command = [str(self._place.python), str(script), "--time", str(self._seconds)]
        text = run(command, self._seconds + SPARE, _UCX_TCP)
        found = re.search(r"^\{.*\}$", text, re.MULTILINE)
        if not found:
            raise MeasureError(f"NIXL wrote no result: {text[-200:]}")
        return {"nixl": json.loads(found[0])["gbit_per_s"]}

    def _mooncake(self) -> dict[str, float]:
        package = self._place.package("mooncake-transfer-engine-non-cuda") / "mooncake"
        program = str(package / "transfer_engine_bench")
        common = ["--metadata_server=P2PHANDSHAKE", "--protocol=tcp", "--auto_discovery=false"]
        common += [f"--buffer_size={256 * MEBIBYTE}"]
        env = {"LD_LIBRARY_PATH": str(package)}
        target = [program, "--mode=target", f"--local_server_name=127.0.0.1:{self._next_port()}"]
        with beside([*target, *common], env) as server:
            server.wait_for("TcpTransport: listen on port", 15)
            place = re.search(r"listening on (127\.0\.0\.1:\d+)", server.text())
            if not place:
                raise MeasureError("Mooncake's target does not say where it listens")
            initiator = [program, "--mode=initiator", f"--segment_id={place[1]}"]
            initiator += [f"--local_server_name=127.0.0.1:{self._next_port()}", "--operation=write"]
            initiator += [f"--block_size={MEBIBYTE}", "--batch_size=8", "--threads=1"]
            initiator += [f"--duration={max(1, round(self._seconds))}", "--report_unit=Gb"]
            text = run([*initiator, *common], self._seconds + SPARE, env)
        found = re.search(r"throughput ([\d.]+) Gb/s", text)
        if not found:
            raise MeasureError("Mooncake wrote no result")
        return {"mooncake": float(found[1])}

    def _testpmd(self) -> dict[str, float]:
        if os.geteuid() != 0:
            raise MeasureError("testpmd keeps its files where only root may")
        program = self._place.program("dpdk-testpmd", "dpdk-dev")
        cores = sorted(os.sched_getaffinity(0))
        if len(cores) < 2:
            raise MeasureError("testpmd needs a core for each end")
        with tempfile.TemporaryDirectory(prefix="genie-peers-") as folder:
            ends = [
                self._testpmd_end(program, folder, cores[0], "server", "rxonly"),
                self._testpmd_end(program, folder, cores[1], "client", "txonly"),
            ]
            try:
                with beside(ends[0]) as receiver:
                    receiver.wait_for("Port statistics", 20)
                    with beside(ends[1]) as sender:
                        sender.wait_for("Port statistics", 20)
                        # It counts once a second.
                        seconds = max(2.0, self._seconds) - 0.1
                        rate = _frames_a_second(receiver, sender, seconds, self._seconds + SPARE)
            finally:
                for end in ("server", "client"):
                    shutil.rmtree(f"/run/dpdk/{_prefix(end)}", ignore_errors=True)
        return {"testpmd": rate * FRAME_BYTES * 8 / 1e9}

    def _testpmd_end(self, program: str, folder: str, core: int, role: str, mode: str) -> list[str]:
        socket = f"socket={folder}/memif.sock,socket-abstract=no,bsize=9216"
        eal = [f"--lcores=(0,1)@{core}", "--no-huge", "-m", "512", "--no-pci", "--no-telemetry"]
        eal += [f"--file-prefix={_prefix(role)}", f"--vdev=net_memif0,role={role},{socket}"]
        own = [
            "--nb-cores=1",
            "--mbuf-size=9344",
            "--total-num-mbufs=8192",
            f"--txpkts={FRAME_BYTES}",
        ]
        own += [f"--forward-mode={mode}", "--auto-start", "--stats-period", "1"]
        # It ends when its input does; this keeps one open.
        command = " ".join([program, *(f"'{word}'" for word in eal), "--", *own])
        return ["sh", "-c", f"sleep 600 | exec {command}"]


_UCX_TCP = {"UCX_TLS": "tcp", "UCX_NET_DEVICES": "lo"}


def _prefix(role: str) -> str:
    return f"genie-peers-{os.getpid()}-{role}"


def _frames_a_second(receiver: Other, sender: Other, seconds: float, limit: float) -> float:
    """Frames that came a second, by the receiver's count and the clock here.

    Its own rates are of seconds that may have been cut short.
    """
    came, left = _Counted(receiver, "RX-packets"), _Counted(sender, "TX-packets")
    deadline = time.monotonic() + limit
    while time.monotonic() < deadline:
        came.look()
        left.look()
        if came.span() >= seconds:
            break
        time.sleep(0.01)
    else:
        raise MeasureError("testpmd's frames do not arrive, or can't be counted in time")
    # What was never sent must not set the mark. The sender's count has to be a later one than the
    # receiver's: its next may have been taken before, the one after that was not.
    received, known = came.total(), left.changes
    while left.changes < known + 2:
        if time.monotonic() >= deadline:
            raise MeasureError("testpmd's sender does not say what it sent")
        left.look()
        time.sleep(0.01)
    if received > left.total():
        raise MeasureError(
            f"testpmd received {received} frames, more than the {left.total()} that were sent"
        )
    return came.rate()


#: A count that was seen later than this after it was written makes a wrong rate.
_LATE = 0.05


class _Counted:
    """A counter of testpmd's that is written once a second, and when it changed."""

    def __init__(self, end: Other, name: str) -> None:
        self._end = end
        self._pattern = re.compile(rf"{name}:\s+(\d+)")
        self._seen: list[tuple[float, int]] = []
        self._last = 0
        self._looked = time.monotonic()
        self.changes = 0

    def look(self) -> None:
        looked, before = time.monotonic(), self._looked
        self._looked = looked
        counts = self._pattern.findall(self._end.text())
        count = int(counts[-1]) if counts else 0
        if count == self._last:
            return
        self._last = count
        self.changes += 1
        # Written since the look before, which may be long ago on a busy machine. The first count
        # may be of a fraction of a second, so it only begins.
        if looked - before <= _LATE:
            self._seen.append((looked, count))

    def total(self) -> int:
        """Frames since the process began, by its last count."""
        return self._last

    def span(self) -> float:
        return self._seen[-1][0] - self._seen[0][0] if len(self._seen) >= 3 else 0.0

    def rate(self) -> float:
        (began, first), (ended, last) = self._seen[0], self._seen[-1]
        return (last - first) / (ended - began)
