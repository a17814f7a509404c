"""``genie.replay``: a module or function whose operators are called again without Python."""

from __future__ import annotations

import functools
import statistics
import threading
import time
from collections import Counter, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar

import torch

from . import _compile

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import fx

_P = ParamSpec("_P")
_R = TypeVar("_R")

#: A report's times are those of so many calls, the last ones.
_CALLS_TIMED = 256


@dataclass(frozen=True)
class ReplayReport:
    """What became of a replayed module, and where its calls spend this process's time.

    >>> fast = genie.replay(torch.nn.Linear(2, 2).to("remote_accelerator:0"))
    >>> fast.report().graphs
    0
    """

    #: How often it was called.
    calls: int
    #: Graphs that Dynamo traced: of parts between which it could not, and for other sizes or types.
    graphs: int
    #: Native programs in these graphs, and the operators that they call.
    programs: int
    operators: int
    #: How often a program took the records of an earlier run, without calling PyTorch: where
    #: nothing needs gradients, and sizes and types were there twice before.
    taped: int
    #: What graphs still call by Python, and how many times that is in them.
    python: dict[str, int]
    #: Seconds that a call spends in graphs: the median of the last 256 calls.
    graph_seconds: float
    #: Seconds that it spends outside: Dynamo's guards, and Python between graphs.
    outside_seconds: float

    def __str__(self) -> str:
        python = ", ".join(f"{name} ({count})" for name, count in self.python.items())
        return (
            f"{self.calls} calls; {self.graphs} graphs with {self.programs} programs of "
            f"{self.operators} operators, {self.taped} runs of them from records; by Python: "
            f"{python or 'nothing'}; a call takes "
            f"{self.graph_seconds * 1e6:.0f} us in graphs and {self.outside_seconds * 1e6:.0f} us "
            "in guards and between graphs"
        )


class Replay(Generic[_P, _R]):
    """What :func:`genie.replay` gives: called as what it is made of, whose attributes it has.

    >>> fast = genie.replay(torch.nn.Linear(3, 2).to("remote_accelerator:0"))
    >>> fast.out_features
    2
    """

    def __init__(
        self, target: Callable[_P, _R], *, dynamic: bool | None = None, fullgraph: bool = False
    ) -> None:
        functools.update_wrapper(self, target, updated=())
        self._target = target
        self._plans: list[_compile.Plan] = []
        self._times: deque[tuple[float, float]] = deque(maxlen=_CALLS_TIMED)
        self._calls = 0
        self._inside = threading.local()
        self._lock = threading.Lock()
        self._run: Callable[_P, _R] = torch.compile(
            target, backend=self._compile, dynamic=dynamic, fullgraph=fullgraph
        )

    def __call__(self, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        self._inside.seconds = 0.0
        start = time.perf_counter()
        result = self._run(*args, **kwargs)
        taken = time.perf_counter() - start
        inside = self._inside.seconds
        with self._lock:
            self._calls += 1
            self._times.append((inside, taken - inside))
        return result

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._target, name)

    def __repr__(self) -> str:
        return f"genie.replay({self._target!r})"

    def report(self) -> ReplayReport:
        """Tell what became of it so far.

        >>> fast = genie.replay(lambda x: ((x + 1) * 2).relu().sum())
        >>> _ = fast(torch.ones(2, device="remote_accelerator:0"))
        >>> fast.report().programs, fast.report().operators, fast.report().python
        (1, 4, {})
        """
        with self._lock:
            plans, times, calls = list(self._plans), list(self._times), self._calls
        programs = [count for plan in plans for count in plan.programs.calls]
        return ReplayReport(
            calls=calls,
            graphs=len(plans),
            programs=len(programs),
            operators=sum(programs),
            taped=sum(plan.programs.taped for plan in plans),
            python=dict(Counter(name for plan in plans for name in plan.programs.python)),
            graph_seconds=statistics.median([graph for graph, _ in times] or [0.0]),
            outside_seconds=statistics.median([outside for _, outside in times] or [0.0]),
        )

    def _compile(self, module: fx.GraphModule, _inputs: Sequence[Any]) -> Callable[..., Any]:
        plan = _compile.Plan(module)
        with self._lock:
            self._plans.append(plan)
        inside = self._inside

        def call(*inputs: Any) -> Any:
            start = time.perf_counter()
            try:
                return _compile.run(plan, inputs)
            finally:
                # A thread may get here that never came by __call__: autograd's, for one.
                seconds = getattr(inside, "seconds", 0.0)
                inside.seconds = seconds + time.perf_counter() - start

        return call


def replay(
    target: Callable[_P, _R], *, dynamic: bool | None = None, fullgraph: bool = False
) -> Replay[_P, _R]:
    """Call a module's or function's operators again without running its Python.

    The first call traces ``target`` (by ``torch.compile``, whose guards decide at each later call
    whether what was traced fits: parameters, sizes, types, modes, and what else it read); then its
    operators are called natively, and what it did to Python's objects is done again. What can't be
    traced or guarded runs as it always does. Gradients, autocast, random numbers and writes in
    place are those of ``target``, and so are the plans by which its operators travel.

    ``dynamic`` and ``fullgraph`` are those of :func:`torch.compile`: sizes that change are traced
    anew once (``None``), from the start for all sizes (``True``), or for each (``False``); with
    ``fullgraph`` what can't be traced is an error. :meth:`Replay.report` says what became of it.

    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
    >>> fast = genie.replay(model.to("remote_accelerator:0"))
    >>> fast(torch.ones(3, 4, device="remote_accelerator:0")).shape
    torch.Size([3, 2])
    """
    if not callable(target):
        raise TypeError(f"replay takes a module or a function, and not {type(target).__name__}")
    return Replay(target, dynamic=dynamic, fullgraph=fullgraph)
