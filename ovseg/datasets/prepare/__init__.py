"""From the official downloads to the files that the data sets read: one module for each download.

Every module has ``prepare(root) -> list[str]``, which checks the layout, converts what is not converted yet
(so that an interrupted run goes on), and returns lines that say what is there. A layout that is not the
official one raises ``LayoutError`` with what is missing.
"""
