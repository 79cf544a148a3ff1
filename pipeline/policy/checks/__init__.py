"""One function for each clause: it looks at the running system and says whether the sentence is true now.

collected  section 1      kept     section 3       rights    section 6
pages      1, 4           outside  1, 5            security  1, 7
uses       section 2      people   8, 10           changes   section 9
"""
