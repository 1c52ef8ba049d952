"""
The store: one method per atomic step.

Joins the steps of rooms, campaigns, presence and timers into the one object the engine passes around. Hot steps (joins,
leaves, likes, comments, claims, grabs) take a callback and travel in batches; the others are awaited.

Every step may fail with `StoreUnavailable`; repeating it is always safe. Cancelling an await does not cancel the step.
"""

from engine.store.base import Seen
from engine.store.campaigns import CampaignSteps
from engine.store.presence import PresenceSteps
from engine.store.replies import Answer, Answered, LikesAnswer, to_answer, to_rejection
from engine.store.rooms import MERCHANT_ACTOR, MERCHANT_RANK

__all__ = [
    "MERCHANT_ACTOR",
    "MERCHANT_RANK",
    "Answer",
    "Answered",
    "LikesAnswer",
    "Seen",
    "Store",
    "to_answer",
    "to_rejection",
]


class Store(CampaignSteps, PresenceSteps):
    """Everything that rooms share, on one Redis or Valkey server."""
