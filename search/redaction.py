"""Text that is shown to others: what looks like a credential is blotted out."""

from data_pipeline.addresses import without_secrets

__all__ = ["without_secrets"]
