"""The page at `/ui/`: static files that a browser runs, and the routes that serve them."""
