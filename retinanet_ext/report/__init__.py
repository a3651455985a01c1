"""One page about what a detector does wrong, from its detections, and the files beside it."""

from .compute.compare import Other
from .compute.options import ReportOptions
from .compute.subject import Subject, subject_of_dataset, subject_of_files
from .write import Model, Written, write_report

__all__ = [
    "Model",
    "Other",
    "ReportOptions",
    "Subject",
    "Written",
    "subject_of_dataset",
    "subject_of_files",
    "write_report",
]
