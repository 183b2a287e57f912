"""Servers that a user would write instead, each a program; none imports anything of the product."""
