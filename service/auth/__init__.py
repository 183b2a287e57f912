"""API keys: access control, quotas, and the addresses that may be listened on without them."""
