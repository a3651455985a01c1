"""Checks of whole datasets: what is wrong in which file, and a cleaned copy.

A reader makes a ``DatasetTable``; ``examine`` checks it; ``clean`` makes a corrected COCO json.
"""

from .checks import Report, add_reader_warnings, examine, find_faults
from .coco_file import to_coco, write_json
from .findings import CODES, Change, Fault, Finding
from .fix import clean
from .images import ImageFacts, read_images
from .report_text import format_report, report_as_json
from .sources import LoadedTable, load_table, why_refused
from .statistics import InputSize
from .table import DatasetTable, from_coco_content, from_coco_json, from_dataset_dicts

__all__ = [
    "CODES",
    "Change",
    "DatasetTable",
    "Fault",
    "Finding",
    "ImageFacts",
    "InputSize",
    "LoadedTable",
    "Report",
    "add_reader_warnings",
    "clean",
    "examine",
    "find_faults",
    "format_report",
    "from_coco_content",
    "from_coco_json",
    "from_dataset_dicts",
    "load_table",
    "read_images",
    "report_as_json",
    "to_coco",
    "why_refused",
    "write_json",
]
