"""Step 4 of 6, inspect: finds and hides sensitive values in what servers answer.

Gets bytes and a `MaskSpec`, hands on bytes of which nothing that the spec names can be read. Pure: no socket, clock
or log. What cannot be masked safely raises `MaskError`; it is never let through.

Read in this order: `table` and `rows` (what a value looks like), `confirm`, `contacts` and `secrets` (is it one),
`engine` and `scanner` (where they are), `escapes` and `views` (what other spellings hide), `text` (values cut at any
byte), `jsonpath` and `fields` (values named by place), `masker` (all for one spec).
"""
