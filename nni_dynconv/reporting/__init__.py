"""What a run shows: data first, then one page that needs nothing else; runs beside one another, trials as a table.

It reads what a run's folder holds. What is measured in a search, and what is written there, is not decided here.
"""

from .comparing import Runs, compare_runs
from .data import Report
from .drawing import picture_of
from .gathering import report_of
from .slides import add_slides
from .trials import trials_csv
from .writing import page_of, write_report

__all__ = [
    "Report",
    "Runs",
    "add_slides",
    "compare_runs",
    "page_of",
    "picture_of",
    "report_of",
    "trials_csv",
    "write_report",
]
