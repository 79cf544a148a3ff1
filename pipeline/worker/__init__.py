"""Handle the events of the inbox.

worker           runs the handlers of a batch of events
failed_events    what becomes of an event that its handler did not handle
recovery         handles the due events that no broker message delivered
"""
