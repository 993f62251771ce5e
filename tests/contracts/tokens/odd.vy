# pragma version 0.4.3
# pragma evm-version cancun
"""
@title A token whose answers are chosen by its tests: false instead of a revert, refused receivers, invented balances
"""

balanceOf: public(HashMap[address, uint256])
answer: bool
blocked: HashMap[address, bool]
greedy: bool


@deploy
def __init__():
    self.answer = True


@external
def mint(receiver: address, amount: uint256):
    self.balanceOf[receiver] += amount


@external
def approve(spender: address, amount: uint256) -> bool:
    return True


@external
def set_answer(answer: bool):
    self.answer = answer


@external
def block_account(account: address, blocked: bool):
    self.blocked[account] = blocked


@external
def set_greedy(greedy: bool):
    # takes balance away from whom it should pay
    self.greedy = greedy


@external
def transfer(receiver: address, amount: uint256) -> bool:
    assert not self.blocked[receiver], "blocked"
    if not self.answer:
        return False
    self.balanceOf[msg.sender] -= amount
    self.balanceOf[receiver] += amount
    return True


@external
def transferFrom(owner: address, receiver: address, amount: uint256) -> bool:
    assert not self.blocked[owner], "blocked"
    if not self.answer:
        return False
    if self.greedy:
        self.balanceOf[receiver] -= amount
        return True
    self.balanceOf[owner] -= amount
    self.balanceOf[receiver] += amount
    return True
