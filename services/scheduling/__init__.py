"""Scheduling: the calendars of practitioners and rooms, and the appointments that win a place in them."""
