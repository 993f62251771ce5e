//! Tokens that misbehave, for tests.
