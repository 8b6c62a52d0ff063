"""The cold path: from the record to costs and meaning. Margins, outcomes, invoices and exports come later.

In: questions about accounts, plans and what was used. Out: answers read from the ledger. It never touches
what may be spent now; that is Redis's, and `gateway`'s.
"""
