"""The machine. It knows no single event (`handlers/`) and no single mail (`email_templates/`).

    ground      settings, clock, files, money, batcher (a thread for what others leave to it), keys, database, rows,
                tables: they import nothing of ours but each other

    in          ingress -> inbox -> broker -> worker -> a handler's one transaction
      ingress   1  POST from PayPal: verify, store, publish the id, answer
      facts        a body split at the door: facts (resources, mentions), the person, the rest (redact)
      inbox     2  received events: store once, load, mark handled or parked, list what is overdue
      broker    3  queues of ids: RabbitMQ, or inside one process
      worker    4  id -> inbox row -> its handler; done, later or park
      sweep        what no message brings, straight from the inbox
      event        what a handler receives, and the three words it may raise: Read, RetryLater, ParkEvent
      reads        what is asked of PayPal's API, and comes back through the inbox

    state       books (rows of one transaction), register (the newest known value of each field)
      subscription  5  statuses, the table of allowed moves, the one function that moves
      payment          sales and refunds
      access           until when is paid

    people      accounts (who they are, what is theirs, what they agreed to), purposes (what their data is used for),
                sign_up (how they come), inbound (what they write to us; letter reads it), product (what they bought,
                asked for its part)

    out         outbox -> mailer -> render, message -> smtp
      notices      which mail a piece of news deserves
      outbox    6  mails owed: add with a key, claim, settle
      render    7  template + facts -> subject, text, html
      message      ... -> the finished bytes, read back (proof) before they may leave
      addressee    ... to whom, and whether they want it
      mailer    8  claim -> render -> smtp -> settle
      smtp      9  the way to the relay (its URL: route; the lines of the dialogue: wire)
      evidence     what became of a mail in doubt, by the relay's own log

    private     privacy/ (what people are promised: the policy's clauses and their checks, their rights, and who read what)
      egress       whom this program may contact
      permissions  files that are for us alone
      rotation     the master key is replaced; backup: encrypted copies of everything, and back

    beside      scheduler (what is due), health (is work done?), alive (is a role there?),
                paypal/ (its API and its signatures), migrations/ (the tables' history)
    seen        web/ (doors and pages), commands/ (the command line), simulator/ (a pretend PayPal)

`__main__` puts the command line together and is the only module that imports `handlers`. Which module may import which
is written down, and tested, in tests/test_imports_point_one_way.py.
"""
