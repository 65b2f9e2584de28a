"""Which tests pytest-xdist gives to one worker together: those of modules that start services for all their tests."""

from __future__ import annotations

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

WHOLE_MODULES = ("tests/e2e/test_dev.py", "tests/signalsmith/test_webserver.py")


class ModuleScheduling(LoadScopeScheduling):
    """Deals tests out one by one, but those of `WHOLE_MODULES` module by module, and these first.

    xdist's own `--dist loadgroup` does that by changing node ids, which pytest 9.2 no longer lets it.
    """

    def _split_scope(self, nodeid: str) -> str:
        module = nodeid.partition("::")[0]
        return module if module in WHOLE_MODULES else nodeid


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> ModuleScheduling:
    """Hook of pytest-xdist."""
    return ModuleScheduling(config, log)
