"""Run the handlers of the events in the inbox.

worker           runs the handlers of a batch of events in one transaction
failed_events    decides about a failed event: look-up, retry or park
recovery         processes due events that no broker message delivered
"""
