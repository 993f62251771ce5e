# pragma version 0.4.3
# pragma evm-version cancun
"""
@title A token that calls a chosen contract back, once, inside transfer and transferFrom, and swallows the outcome
@notice It holds a balance of its own and lets everyone spend it, so that the call back can be a deposit by the token.
"""

balanceOf: public(HashMap[address, uint256])
target: address
data: Bytes[4096]
attempts: public(uint256)
succeeded: public(uint256)


@external
def mint(receiver: address, amount: uint256):
    self.balanceOf[receiver] += amount
    self.balanceOf[self] += amount


@external
def approve(spender: address, amount: uint256) -> bool:
    return True


@external
def arm(target: address, data: Bytes[4096]):
    self.target = target
    self.data = data
    self.attempts = 0
    self.succeeded = 0


@internal
def _call_back():
    if self.target == empty(address):
        return
    target: address = self.target
    self.target = empty(address)
    self.attempts += 1
    if raw_call(target, self.data, revert_on_failure=False):
        self.succeeded += 1


@external
def transfer(receiver: address, amount: uint256) -> bool:
    self._call_back()
    self.balanceOf[msg.sender] -= amount
    self.balanceOf[receiver] += amount
    return True


@external
def transferFrom(owner: address, receiver: address, amount: uint256) -> bool:
    self._call_back()
    self.balanceOf[owner] -= amount
    self.balanceOf[receiver] += amount
    return True
