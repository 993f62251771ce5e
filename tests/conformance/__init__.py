"""The conformance runner: discovers third-party and protocol vectors and runs them."""
