"""Decoding of costly images in processes of their own, which can be killed."""
