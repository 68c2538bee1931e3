"""Which events were seen: a set of ids, kept small."""

from hypothesis import given, settings
from hypothesis import strategies as st

from event_histories import examples
from runfold.protocol.ids import make_event_id
from runfold_workers.fold.run_state import EventIdSet

COUNTED = st.builds(make_event_id, st.sampled_from([0, 1, 2**31 - 1]), st.integers(0, 12))
IDS = COUNTED | st.integers(0, 2**63 - 1)


@settings(max_examples=examples(2))
@given(st.lists(IDS, max_size=60))
def test_an_id_is_new_once(ids: list[int]) -> None:
    """Like a set, in any order, for any emitter and for ids without a counter."""
    seen = EventIdSet()
    known: set[int] = set()
    for event_id in ids:
        assert seen.add(event_id) is (event_id not in known)
        known.add(event_id)


def test_ids_that_count_take_no_room() -> None:
    """Ten thousand ids of an emitter, out of order, end as one number."""
    seen = EventIdSet()
    for counter in [*range(1, 10_000, 2), *range(0, 10_000, 2)]:
        seen.add(make_event_id(5, counter))

    assert not seen.beyond
    assert seen.expected == make_event_id(5, 10_000)


def test_the_last_counter_of_an_emitter_does_not_spill_into_the_next() -> None:
    """An emitter that counted to the end has not sent the first event of its neighbour."""
    seen = EventIdSet()
    last = make_event_id(1, 2**32 - 1)

    assert seen.add(last)
    assert seen.add(make_event_id(2, 0))
    assert not seen.add(last)
