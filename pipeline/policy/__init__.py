"""The privacy policy, executable.

clauses.toml  what is promised, line by line, with the control and the check of each clause
clauses       ... read; promises: the numbers in it, from the code that keeps to them
text          the policy as text and as HTML
versions      which text is in force, which one is to come, who was told
live          what a check may look at, and what it finds
checks/       one function for each clause
verdicts      all checks run, reported, and what of it is public
record        the record of processing (GDPR article 30), from the same data
"""

from pipeline.policy.clauses import Vendor
from pipeline.policy.public_pages import evidence, page, page_of

__all__ = ["Vendor", "evidence", "page", "page_of"]
