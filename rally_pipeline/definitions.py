"""What Dagster loads. Loading touches no network and no database; what is absent, and why, is said on the way.

A setting that cannot be used raises here: a location in error keeps the switches of its schedules and sensors,
whereas an empty one makes Dagster forget them.
"""

import gc

from rally_pipeline.rooms import build
from rally_pipeline.settings import fill_environment, load_settings

fill_environment()
defs = build(load_settings())

# All of this and of Dagster lives as long as the process. Looking for garbage among it, and taking it apart piece by
# piece when the process ends, would cost each run more than half a second.
gc.freeze()
