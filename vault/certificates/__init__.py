"""Certificates as the vault keeps them: bound, signed, and with what answers are compared with."""
