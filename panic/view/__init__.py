"""The web view: stores in a browser, live, on this machine or on a phone.

`server.serve` answers until it is stopped; `access` says who may ask, `sources` holds the open stores,
`records` makes the JSON of experiments and runs, `routes` maps addresses to them, `events` tells of changes,
`computing` asks questions in a process of their own, and `pages/` is what the browser runs.

    panic view; panic view A B --open
"""
