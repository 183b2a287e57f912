"""Routes of administration: API keys, and the audit log."""
