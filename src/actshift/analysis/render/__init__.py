"""Figures, sections, and the renderers that show sections in a terminal and on an HTML page."""
