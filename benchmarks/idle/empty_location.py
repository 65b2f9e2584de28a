"""A code location with one asset that does nothing."""

import dagster as dg


@dg.asset
def empty() -> None:
    """Does nothing."""


defs = dg.Definitions(
    assets=[empty],
    jobs=[dg.define_asset_job("empty_job", selection=[empty])],
    executor=dg.in_process_executor,
)
