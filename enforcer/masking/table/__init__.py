"""Step 4 of 6, inspect: the table of detectors, by what the values are.

`payment`: cards and accounts. `europe`, `taxes` and `world`: people and companies in registers. `contact`: where
somebody, or some machine, is reached. `secrets`: what opens something.

Patterns follow descriptions in Microsoft Presidio (MIT), Yelp detect-secrets (Apache-2.0) and the documents of the
issuers, written anew for engines that look neither behind nor ahead; numbers in the examples are those that issuers and
python-stdnum's documentation print.
"""
