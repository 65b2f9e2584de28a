"""The simulated Sell API: Sync sessions with per-device memory, and the REST reads that repair needs."""

from rally_pipeline.sandbox.sell.api import SellApi

__all__ = ["SellApi"]
