"""All mutants of the policy, by clause."""

from tests.pipeline.policy.mutants import (
    data_wrong_by_hand,
    first_of_each_clause,
    pages_and_sent_mails,
    places_outside_the_tables,
    rights_and_security,
    the_world_outside,
)
from tests.pipeline.policy.mutants.registry import MUTANTS

__all__ = [
    "MUTANTS",
    "data_wrong_by_hand",
    "first_of_each_clause",
    "pages_and_sent_mails",
    "places_outside_the_tables",
    "rights_and_security",
    "the_world_outside",
]
