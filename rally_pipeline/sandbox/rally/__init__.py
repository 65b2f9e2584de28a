"""The simulated Rally CRM: lists, records, change feed, bulk, pipelines, API keys."""

from .api import RallyApi
from .errors import RallyError
from .switches import RallySwitches

__all__ = ["RallyApi", "RallyError", "RallySwitches"]
