"""What spans the rooms' Dagster definitions: resources, run policy, failures, metadata, checks, storage."""
