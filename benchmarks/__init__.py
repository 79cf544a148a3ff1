"""Benchmarks against the stack that a vendor would use otherwise. `python -m benchmarks` measures both in turns.

    __main__         arguments, rounds, and the table at the end
    context          what every row gets: durations, rounds, folders, servers
    rows             one row of the table: subject, peer, ratio, target
    table            all rows of a run, also of one in which a part failed
    report           results in benchmarks/results.json, written into docs/performance.md
    chart            the same as bars in docs/performance.svg
    machine          what the machine can do, and which tools are missing
    load             signed webhooks of simulated customers, in a file that wrk reads
    servers          PostgreSQL, RabbitMQ, Postfix and smtp-sink, private to the run
    tools            wrk and smtp-source
    subject          this program's roles, with their own database and folder
    web_only         the web role alone, in embedded mode
    peer             the peers, in their own environment: benchmarks/peers
    webhook_ingest, event_handling, mail_delivery, end_to_end, receipt, memory, scaling    the rows

Both sides get the same input and write to the same servers. After each round the results of both are counted: each
accepted webhook is stored, each stored event is handled, and each queued mail has reached the relay.
"""
