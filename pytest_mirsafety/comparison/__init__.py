"""One run against another: pairs of outcomes, the increase of the rate with bounds, and its gates.

Nothing is imported here: results know what gates on an increase say, and those know no results.
"""
