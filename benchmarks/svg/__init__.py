"""Plots as SVG, by hand.

picture.py  what plots have in common: colors, a frame, lines across
dots.py     every value a dot, by group and series
lines.py    lines over a linear axis, with a limit
panels.py   a few small line plots side by side
"""
