"""
From the store to every screen: the bus, the hub, and when and what a viewer is sent.

Here live subscriptions, the view a worker keeps of each room, cadence, thinning and the fate of slow viewers. No
decision about a room is made here, and no event is invented here: everything sent came from the store.
"""
