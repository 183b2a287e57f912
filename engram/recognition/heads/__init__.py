"""Weights of heads: of their classes, and of a head beside stage one."""
