"""The record of what was read and answered.

Knows nothing of how an answer is made.
"""

from factform.audit.log import AuditLog
from factform.audit.record import AnswerRecord

__all__ = ["AnswerRecord", "AuditLog"]
