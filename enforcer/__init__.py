"""Host egress enforcer. The path of a connection, and of this tree:

1 capture    bpf/, capture/      connect() is redirected to a listener inside the executor's network namespace
2 identify   identify/           who connects, and which protocol the first bytes are
3 decide     policy/, geo/       policy and region of the destination give a verdict, before any byte goes on
4 inspect    protocols/, masking/  requests are parsed, answers masked
5 forward    proxy/              the original destination is dialled; `proxy/session.py` conducts all six
6 record     recording/          every step is a row of a hash chain in SQLite
"""
