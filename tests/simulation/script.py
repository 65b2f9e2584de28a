"""A history as data, and what a system must offer to be simulated.

A new system is a module `tests/simulation/<name>.py` (or a package of that name) that defines `SYSTEM: System`, and its
name in `NAMES`. Everything else (playing many, shrinking, mutants, crash points) is generic.

Rules for a system:
- *All chance lies in the script.* `generate` decides everything from its seed and writes it into settings and events.
  Where an event needs chance while it is played (which row, which fault), it carries a sub-seed `"seed"` among its
  arguments and plays from `Random(seed)`. So an event means the same whatever was removed before it.
- *`play` knows nothing of `generate`.* Any sub-sequence of the events, with any settings set back to their default,
  must be playable: an event that finds nothing to do does nothing.
- *The same script gives the same digest*, in another process, with another PYTHONHASHSEED, on another machine:
  no clock of the machine, no `uuid4`, no iteration over a set that reaches a request or a row.
- *An unexpected exception of the product is a problem*, not an end of the test: report it in the verdict
  (`play_safely` does that for whatever `play` lets through).
- Use `workplace()` for the folder: it lies in memory where the machine has such a place.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import json
import logging
import tempfile
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

NAMES = ("rally", "sell", "signalsmith", "imports")
"""Systems in the order in which they are played; one counts as soon as its module exists."""


@dataclass(frozen=True)
class Event:
    """One thing that happens: a name that the system knows, and arguments that JSON can hold."""

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def line(self) -> str:
        """`name {"argument": 1}`; the name alone without arguments."""
        return f"{self.name} {_json(self.arguments)}" if self.arguments else self.name


@dataclass(frozen=True)
class Script:
    """One history: `settings` of the world, then `events` in order. Equal scripts play equal histories."""

    system: str
    seed: int
    settings: Mapping[str, Any]
    events: tuple[Event, ...]

    def text(self) -> str:
        """The script as short lines to read, to keep and to load again with `Script.parse`."""
        lines = [f"system {self.system}", f"seed {self.seed}"]
        lines += [f"set {name} {_json(value)}" for name, value in self.settings.items()]
        lines += [f"do {event.line()}" for event in self.events]
        return "\n".join(lines) + "\n"

    @classmethod
    def parse(cls, text: str) -> Script:
        """The script that `text` describes; empty lines and lines that begin with `#` say nothing.

        Raises:
            ValueError: a line is none of `system`, `seed`, `set`, `do`.
        """
        system, seed, settings, events = "", 0, dict[str, Any](), list[Event]()
        for line in text.splitlines():
            word, _, rest = line.strip().partition(" ")
            if not word or word.startswith("#"):
                continue
            name, _, value = rest.strip().partition(" ")
            if word == "system":
                system = name
            elif word == "seed":
                seed = int(name)
            elif word == "set":
                settings[name] = json.loads(value)
            elif word == "do":
                events.append(Event(name, json.loads(value) if value else {}))
            else:
                raise ValueError(f"not a line of a script: {line!r}")
        return cls(system, seed, settings, tuple(events))

    def with_events(self, events: Iterable[Event]) -> Script:
        return replace(self, events=tuple(events))

    def with_settings(self, settings: Mapping[str, Any]) -> Script:
        return replace(self, settings=dict(settings))


@dataclass(frozen=True)
class Verdict:
    """What came of one history."""

    problems: list[str]
    """Everything that went wrong, one short line each; empty for a good history."""
    digest: str
    """Hash of the request log and of the canonical text of the database; see `digest_of`."""
    requests: int
    crashes: int
    """How many times the process died."""
    steps: int
    """How many times the `step` hook was called."""


@dataclass(frozen=True)
class Mutant:
    """One known way to spoil the product, as a patch at run time: never a switch inside the product."""

    name: str
    description: str
    """What the spoiled product does, in one line; the words of correctness.md, section 12."""
    patch: Callable[[], AbstractContextManager[None]]
    """While entered, the product is spoiled. Patches attributes and methods; see `patched`."""
    budget: int = 2000
    """Histories within which the simulation has to notice."""


@dataclass(frozen=True)
class Passage:
    """One reference sync, lived through with crashes."""

    steps: tuple[int, ...]
    """How many steps each process lived: those that crashed, then the one that came to the end."""
    names: tuple[str, ...]
    """The steps of the **first** process, in order."""
    differences: tuple[str, ...]
    """Warehouse (or remote) against truth after the end, and anything left over; empty for a good passage."""


Reference = Callable[[Path, Sequence[int]], Passage]
"""A reference sync: `reference(folder, crashes)`.

Builds its world in `folder` from fixed settings, then runs the whole sync as a series of processes. `crashes[i] = n`
ends process `i` at its n-th step (1 is the first; a number beyond its life ends nothing). Each crash is followed by a
new process that runs the same sync from its beginning; the last one lives. After that *one more run*, then the
comparison. With `()` it tells how many steps there are."""


@dataclass(frozen=True)
class System:
    """A system under simulation; each module in `NAMES` defines one as `SYSTEM`."""

    name: str
    generate: Callable[[int], Script]
    """The script of a seed. Pure: the same seed, the same script."""
    play: Callable[[Script, Path], Verdict]
    """Plays a script in an empty folder. Pure but for the folder."""
    defaults: Mapping[str, Any]
    """The dullest value of each setting; the shrinker sets each one back to it if the failure stays."""
    histories: int = 1000
    """How many a change has to survive."""
    mutants: Sequence[Mutant] = ()
    references: Mapping[str, Reference] = field(default_factory=dict)

    def mutant(self, name: str) -> Mutant:
        return next(mutant for mutant in self.mutants if mutant.name == name)


def available() -> tuple[str, ...]:
    """The systems whose module exists."""
    return tuple(name for name in NAMES if importlib.util.find_spec(f"{__package__}.{name}"))


def load(name: str) -> System:
    """The system of that name.

    Raises:
        ModuleNotFoundError: no such module.
    """
    found: System = importlib.import_module(f"{__package__}.{name}").SYSTEM
    return found


def play_safely(system: System, script: Script) -> Verdict:
    """Play in a fresh folder; an exception that comes out is the verdict's problem."""
    with workplace() as folder:
        # What the product logs about faults is not for the person who watches thousands of histories.
        logging.disable(logging.CRITICAL)
        try:
            return system.play(script, folder)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # noqa: BLE001 - whatever comes out is what the history found
            where = traceback.extract_tb(error.__traceback__)[-1]
            text = (
                f"{type(error).__name__}: {error} ({Path(where.filename).name}:{where.lineno} {where.name})"
            )
            return Verdict([text], "", 0, 0, 0)
        finally:
            logging.disable(logging.NOTSET)


@contextmanager
def workplace() -> Iterator[Path]:
    """An empty folder, in memory where the machine has it, gone afterwards."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="simulation-", dir=memory if memory.is_dir() else None) as name:
        yield Path(name)


@contextmanager
def patched(owner: Any, **replacements: Any) -> Iterator[None]:
    """Attributes of a class or module replaced for a while; each must exist, so that no mutant rots unseen."""
    kept = {name: owner.__dict__[name] for name in replacements}
    for name, value in replacements.items():
        setattr(owner, name, value)
    try:
        yield
    finally:
        for name, value in kept.items():
            setattr(owner, name, value)


def digest_of(*texts: Iterable[str]) -> str:
    """One hash over lines of text, such as the request log and the dump of the database."""
    total = hashlib.sha256()
    for lines in texts:
        for line in lines:
            total.update(line.encode() + b"\n")
        total.update(b"\0")
    return total.hexdigest()[:16]


def _json(value: Any) -> str:
    return json.dumps(value, separators=(", ", ": "), ensure_ascii=False, sort_keys=isinstance(value, dict))
