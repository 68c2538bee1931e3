"""Where tests kill a worker: every step of a batch and of a lease, in order.

Each of these is a `crash_point` in workers or storage.
"""

from typing import Final

POINTS: Final = (
    "before_lease_take",
    "after_lease_take",
    "after_mend",
    "after_read",
    "after_fold",
    "after_weeks_made",
    "before_positions_move",
    "after_positions_move",
    "after_events_copied",
    "before_commit",
    "after_commit",
    "after_publish",
    "after_trim",
    "after_refusal",
    "between_halves",
    "before_lease_renew",
    "after_lease_renew",
    "before_lease_release",
    "after_lease_release",
)

JOB_POINTS: Final = (
    "before_correction_commit",
    "after_progress",
    "after_page_deleted",
    "after_marking",
    "after_aging_step",
    "after_step_begun",
    "after_files_written",
    "after_step_written",
    "before_step_end",
    "after_group_restored",
    "before_deletion_commit",
    "after_deletion_commit",
)
"""The same for jobs."""
