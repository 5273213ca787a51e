"""All SQL. Rows stop here: schemas go in and come out."""

SWEPT = 100
"""How many rows that are over each insert removes: more than it adds, and few enough to be quick."""

CHANNEL = "chat_insights"
"""Where notices to live readers go."""
