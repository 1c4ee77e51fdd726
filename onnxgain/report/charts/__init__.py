"""Results as pictures: Vega-Lite charts, and figures drawn with matplotlib."""
