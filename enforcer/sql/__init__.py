"""Step 4 of 6, inspect: what SQL statements do and which columns they touch, for the protocols that carry SQL.

Read in this order: `shape` (literals out, by the dialect's own lexical rules), `statements` (what kind of statement),
`reading` (queries: tables, columns, where each output column comes from), `understanding` (all of it, cached).
"""
