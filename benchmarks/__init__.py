"""How fast we are beside what a vendor would use instead. `python -m benchmarks` measures both, in turns.

    __main__     what is asked, the rounds, the table at the end
    bench        what every row is given: how long and how often, folders, servers
    rows         one row of the table: ours, the peer's, the ratio, the target
    table        all rows of a run, also of one in which a part failed
    report       what a run found, kept in benchmarks/results.json and written into docs/performance.md
    picture      the same as bars in docs/performance.svg
    machine      what the machine can do, and whether the tools are there
    load         pretend customers' webhooks, signed, in a file that wrk reads
    servers      PostgreSQL, RabbitMQ, Postfix and smtp-sink, private to the run, and what is looked up in them
    tools        wrk and smtp-source, run and read
    ours         our roles, with a database and a folder of their own
    role         the web role alone on the embedded column
    theirs       the peers, in an environment of their own: benchmarks/peers
    door, work, mails, whole, receipt, memory, growth      the rows

Both sides get the same input and write to the same servers. After every round both are counted: what was answered is
stored, what was stored is handled, what was owed has reached the relay.
"""
