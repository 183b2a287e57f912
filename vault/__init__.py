"""Versioned state: write-once objects, the commit log, job records, leases and events."""
