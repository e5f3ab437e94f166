"""The report of one run or several: one HTML page that needs nothing else, no script and no network.

Its charts are SVG that is written here: a library would have to come along, as 1 MB of JavaScript (Vega-Altair), 4 MB
(Plotly) or pictures in fixed colours (matplotlib), and none follows the reader's colours, font and width by CSS.
"""
