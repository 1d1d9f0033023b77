"""Step 4 of 6, inspect: finds sensitive values in what clients ask and servers answer, and hides or replaces them.

Gets bytes and a `MaskSpec`, hands on bytes of which nothing that the spec names can be read. Pure: no socket, clock
or log. What cannot be masked safely raises `MaskError`; it is never let through.

Read in this order: `table` and `rows` (what a value looks like), `confirm`, `contacts` and `secrets` (is it one),
`engine` and `scanner` (where they are), `escapes` and `views` (what other spellings hide), `text` (values cut at any
byte), `jsonpath` and `fields` (values named by place), `masker` (all for one spec); then `operators`, `naming` and
`rewriting` (what else may stand there), `pseudonyms`, `restore`, `deltas` and `answers` (what is taken back), `trial`,
`members` and `reasons` (for who tries out a mask).
"""
