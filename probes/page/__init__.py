"""The parts of the report page: what it says (Python), and how it looks (template, style, script).

Python writes every sentence, and each module makes one section as plain data. What needs
no script is in the HTML: the verdict, the tables, the settings. Curves, spectra and the sortable
table of classes travel as JSON, which ``page.js`` draws with uPlot.
"""
