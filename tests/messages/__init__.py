"""Tests of `messages/`: round trips, hostile bytes, and the vulnerable twins of the incidents that concern it."""
