"""The spool: frames that wait on disk while Redis accepts none.

A folder holds *segments* (frames in the order in which they are to be sent) and *drop counters*
(numbers of dropped events). Each process writes files of its own and holds their locks (`flock`),
which the kernel releases when it dies. Then any process that records to the same Redis, of which
each file has a digest, adopts the segment, sends the rest of it and deletes it, and likewise
reports and deletes the counter.

Invariants: a frame is in at most one segment; a segment is deleted only after Redis has every
frame of it that can be read. Written frames survive the process, synced ones a loss of power.

A process that dies halfway leaves a new file unpublished (it is removed), a torn last record (it
is cut), progress that was not recorded (frames are sent again, with the same event ids), or a
counter that was reported but not deleted (its number counts twice). Nothing is lost. A segment
with a damaged record is sent as far as possible and then renamed to `….corrupt`.
"""
