"""Reports: what was found, for people.

pictures  figures as PNG: spectrograms, maps, curves, bars, clusters
"""
