# pragma version 0.4.3
# pragma evm-version cancun
"""
@title Not a token: sends two calls to one contract in one transaction
"""


@external
def call_twice(target: address, first: Bytes[4096], second: Bytes[4096]):
    raw_call(target, first)
    raw_call(target, second)
