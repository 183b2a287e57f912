"""HTTP server of one replica, and the stack of `engram serve`."""
