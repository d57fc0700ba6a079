"""Masks against truth: metrics, the protocols of the papers, and questions that no average answers.

metrics    P, J, AUROC, protocols and their averages
rows       `evaluate`: a row a photograph; `partner_swap`, `refusal`
"""
