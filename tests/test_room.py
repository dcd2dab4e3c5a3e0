from __future__ import annotations

import threading
import time

from lsfd.inference.room import Room


def test_who_finds_no_room_waits_until_there_is() -> None:
    room, order = Room(10), []
    go = threading.Event()

    def first() -> None:
        with room.taken(7):
            go.set()
            time.sleep(0.1)
            order.append("first")

    def second() -> None:
        go.wait()
        with room.taken(4):
            order.append("second")

    threads = [threading.Thread(target=each) for each in (first, second)]
    for thread in threads:
        thread.start()
    go.wait()
    with room.taken(3):  # There is room for that beside the first.
        order.append("beside")
    for thread in threads:
        thread.join()
    assert order == ["beside", "first", "second"]


def test_too_much_gets_all_there_is_and_gives_it_back() -> None:
    room = Room(10)
    for _ in range(2):
        with room.taken(1000):
            pass
    with room.taken(10):
        pass


def test_room_is_given_back_after_an_error() -> None:
    room = Room(10)
    try:
        with room.taken(10):
            raise ValueError
    except ValueError:
        pass
    with room.taken(10):
        pass
