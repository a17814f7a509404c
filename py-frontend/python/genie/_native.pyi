from contextvars import ContextVar
from os import PathLike
from types import ModuleType
from typing import Any, TypedDict, final, type_check_only

__all__ = [
    "TORCH_VERSION",
    "Annotating",
    "Transcript",
    "__version__",
    "annotate_by",
    "annotation",
    "annotations",
    "at_exit",
    "connect",
    "devices",
    "disconnect",
    "expect",
    "find",
    "is_connected",
    "is_forked",
    "library_operators",
    "profile_start",
    "profile_stop",
    "reads_frames",
    "register",
    "resolve",
    "site",
    "stats",
    "synchronize",
]

__version__: str
TORCH_VERSION: str

@type_check_only
class _Device(TypedDict):
    index: int
    node: str
    name: str
    description: str
    memory_bytes: int
    memory_limit_bytes: int
    speed: float
    link: str
    alive: bool

@final
class Annotating:
    """What a task says of the tensors that it makes."""

    def __new__(cls, said: object, remembered: object) -> Annotating: ...
    @property
    def said(self) -> Any: ...

@final
class Transcript:
    """What was recorded while somebody wanted to know."""

    @property
    def dropped(self) -> int: ...
    def explain(
        self,
        style: str,
        known: list[tuple[str, str, float | None]],
        nodes: list[str],
        warnings: list[str],
    ) -> str: ...
    def export(
        self, is_json: bool, known: list[tuple[str, str, float | None]], nodes: list[str]
    ) -> bytes: ...

def annotate_by(variable: ContextVar[Annotating | None]) -> None: ...
def annotation(number: int) -> Any: ...
def annotations() -> int: ...
def profile_start(is_whole: bool = False) -> None: ...
def profile_stop() -> dict[str, Any]: ...
def register(torch_version: str, inner_folders: list[str], errors: ModuleType) -> None: ...
def resolve(
    addresses: list[str] | None,
    ca: str | None,
    cert: str | None,
    key: str | None,
    placement: str | None,
    policy: str | None,
    config: str | PathLike[str] | None,
) -> tuple[list[str], str | None, str | None, str | None, str | None]: ...
def connect(
    addresses: list[str],
    ca: str | None,
    cert: str | None,
    key: str | None,
    policy: str | None,
    timeout: float,
) -> None: ...
def expect(values: list[tuple[int, int, int]]) -> None: ...
def reads_frames() -> bool: ...
def find(address: int) -> tuple[list[int], str] | None: ...
def site(file: str, line: int, name: str) -> int: ...
def disconnect() -> None: ...
def synchronize() -> None: ...
def at_exit() -> None: ...
def is_connected() -> bool: ...
def is_forked() -> bool: ...
def devices() -> list[_Device]: ...
def library_operators(device: int) -> list[str]: ...
def stats() -> dict[str, Any]: ...
