"""The nouns and the decisions of Faregate, pure.

In: values. Out: values and refusals. Nothing here knows a clock, a loop, a wire or a disk: time and
randomness are arguments. What happens with a decision is for `gateway` (the request's way) and
`billing` (what is read from the record afterwards).
"""
