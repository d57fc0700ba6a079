"""An iterator in a thread of its own: everything, in order, errors too, and not too far ahead."""

import threading
import time

import pytest

from coseglib.core.ahead import ahead


def test_everything_comes_in_order():
    assert list(ahead(iter(range(100)), 3)) == list(range(100))
    assert list(ahead([], 3)) == []
    assert list(ahead([None, None], 1)) == [None, None]


def test_it_is_worked_on_meanwhile_and_not_too_far():
    made = []
    items = ahead((made.append(i) or i for i in range(50)), 4)
    assert next(items) == 0
    time.sleep(0.3)
    assert 5 <= len(made) <= 6  # four that wait, and one in hand
    assert list(items) == list(range(1, 50))


def test_an_error_comes_after_what_was_before_it():
    def items():
        yield 1
        raise KeyError("two")

    reading = ahead(items(), 5)
    assert next(reading) == 1
    with pytest.raises(KeyError, match="two"):
        next(reading)


def test_who_stops_asking_stops_the_thread():
    before = threading.active_count()
    items = ahead(iter(range(10**9)), 2)
    next(items)
    assert threading.active_count() == before + 1
    items.close()
    assert threading.active_count() == before
