"""Commands that ask a running service, over the client."""
