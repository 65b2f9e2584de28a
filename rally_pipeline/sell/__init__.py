"""Zendesk Sell: the Sync queue drained into tables, and what it leaves open settled by reading records."""
