"""
The judge of money and stock: from what claimers were told and what the server says in the end, what is wrong.

Decides whether these promises of docs/protocol.md were kept:

- **I1 stock**: never more units held and sold than there are; one win per viewer and limit; every acknowledged win
  is in the orders; every order is somebody's attempt; nothing is won before the start or after the end, nothing
  refused as sold out before enough had been asked for; the same key has the same answer; payments end in an order
  paid or a refund.
- **I2 cents**: granted + left + refunded is the total, to the cent; a share is at least the minimum; one per viewer; no
  more than announced; what is left comes back once.
- **I6 board**: the share board is what the records of arrivals say, and each record is an arrival of this run.
- **I7 one at a time**: there is an order of single claims that explains every answer. The orders' own history is
  one such order, and is checked against the times at which each claim was asked and answered; small histories are
  also searched without it (`linear.py`).

Pure. It trusts neither side more: claimers' memories, the order changes, the audit and the totals have to agree.
Moments are compared on one clock each: those of claims with each other on the generator's; with the store's only beyond
the error that the measured difference of the two may have.
"""

from loadtest.asks import STOCK, asks_of
from loadtest.board_judge import check_board
from loadtest.findings import Findings
from loadtest.history import Dump, History
from loadtest.packets_judge import Packets
from loadtest.plan import Plan
from loadtest.sales_judge import Sales


def check(plan: Plan, history: History, dump: Dump, found: Findings) -> None:
    """Add everything that is wrong with the campaigns of a run to `found`, and their figures."""
    asks = asks_of(plan, history)
    Sales(history, dump, found, asks["seckill.claim"]).check()
    Packets(plan, history, dump, found, asks["redpacket.grab"]).check()
    check_board(plan, history, dump, found)
    if dump.audit and dump.audit.get("holds") is not True:
        found.add(STOCK, "the server's own audit does not hold")
