"""Readers of labelled images as people have them: parts, tables, image folders with metadata."""
