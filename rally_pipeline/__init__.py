"""Keeps a SQL warehouse and CRMs in step: nothing lost, nothing doubled, provably."""

__version__ = "0.1.0"
