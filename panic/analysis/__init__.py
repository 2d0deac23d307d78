"""From a store to answers: frames, charts and the report.

from panic.analysis.report import write_report
write_report(store, "latest", "report.html")
"""
