"""Arithmetic: arrays and generators in, arrays out. Nothing here knows of files, devices or commands."""
