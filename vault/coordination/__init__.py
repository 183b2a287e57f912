"""Coordination of processes through Redis: leases, events, progress and novelty reports."""
