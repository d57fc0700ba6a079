"""Do the parts of the papers' systems do what the papers say of them? `coseg ablate` and notebook 09.

papers_claims  the claims, the variants that they set against each other, budgets and configurations
queue          the trainings that claims need, one after the other; their table
verdicts       the stated test, and the tables that are read
"""
