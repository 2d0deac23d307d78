"""Finding experiments, runs and texts: a filter language over what a store knows, and a search in its texts.

syntax.py      a filter's text becomes a tree of conditions, or an error that points at the place
fields.py      what can be asked for: names, types, what they are in SQL
conditions.py  a tree becomes SQL in which every value is a bound parameter
queries.py     experiments and runs that a filter finds, sorted, with columns
"""
