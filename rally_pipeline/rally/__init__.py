"""Rally CRM: full extract, change feed, looks, verification."""
