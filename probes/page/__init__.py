"""The report page: content in Python, layout in templates, a style sheet and a script.

Each module makes one section as plain data. Verdict, tables and settings are in the HTML; curves,
spectra and the sortable table of classes are JSON, which ``page.js`` draws with uPlot.
"""
