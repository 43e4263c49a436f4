"""Rooms for other libraries, each reached as `nbopt.<name>` and imported when it is first used."""
