"""Finding experiments and runs: a filter language over what a store knows.

syntax.py      a filter's text becomes a tree of conditions, or an error that points at the place
fields.py      what can be asked for: names, types, what they are in SQL
conditions.py  a tree becomes SQL in which every value is a bound parameter
matching.py    regular expressions under a limit of time
queries.py     experiments and runs that a filter finds, sorted, with columns; runs by their uid
found.py       the same from Python, as dictionaries
narrowing.py   a store of which only what a filter finds is seen
"""
