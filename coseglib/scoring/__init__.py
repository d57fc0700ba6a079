"""Masks against truth: metrics, the protocols of the papers, and questions that no average answers.

metrics    P, J, AUROC, protocols and their averages
rows       `evaluate`: a row a photograph; `partner_swap`, `refusal`
prior_weight  `weight_rows`: how much a prior should count
references `reference_rows`, `swap_by_reference`: with masks of the group's first photographs
"""
