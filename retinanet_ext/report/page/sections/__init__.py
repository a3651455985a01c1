"""The sections of the page, each made of one part of the content."""
