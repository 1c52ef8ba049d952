"""
What happens when something breaks: a killed store, a cut or frozen connection, a viewer that does not read.

Faults are caused, not imitated: processes are signalled, sockets are cut.
"""
