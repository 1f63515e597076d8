"""Virtual time goes forward, and nothing happens out of turn."""

from __future__ import annotations

from kv.sim.stock.events import EventQueue


def test_events_come_in_the_order_of_time_then_of_arrival() -> None:
    """Ties are broken by who was put first; what is due later stays."""
    queue, happened = EventQueue(), list[str]()
    queue.after(2.0, lambda: happened.append("late"))
    queue.after(1.0, lambda: happened.append("first"))
    queue.after(1.0, lambda: queue.after(0.0, lambda: happened.append("third")))
    queue.after(1.0, lambda: happened.append("second"))
    queue.run(1.5)
    assert happened == ["first", "second", "third"]
    assert (queue.now, queue.events) == (1.5, 4)
    queue.run(2.0)
    assert happened[-1] == "late"
