"""HTTP service of Engram, with its command line."""
