"""The version of what decides on a trial's numbers beside its spec, the data and the libraries."""

# Raise it where training or scoring changes in any digit: `facts.json` records it, and
# `reproduce` names it where it differs. Records without it are of version 1.
# 2: random numbers by purpose; batch norm's averages measured at an epoch's end.
# 3: a fine-tuned trial's first epoch is its solved head.
# 4: logistic heads with a scaled intercept, solved further in fewer iterations.
# 5: adamw decays kernels alone.
# 6: the views of a feature bank are rendered as other views are, apart from preprocessing.
# 7: solved heads of more features than images by a product less.
TRAINING_VERSION = 7
