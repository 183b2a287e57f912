"""Reference images, and the digest of what a decoder makes of them."""
