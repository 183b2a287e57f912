"""Integrity check, garbage collection, export and import of a store."""
