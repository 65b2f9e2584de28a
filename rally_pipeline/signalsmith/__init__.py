"""SignalSmith: its syncs as assets and schedules, their runs attached to or triggered exactly once."""
