"""Draining the Sell queue."""
