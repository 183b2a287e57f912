"""Client of Engram: image models that keep learning in production and never forget."""

from engram_client.async_client import AsyncClient
from engram_client.async_jobs import AsyncLearningJob
from engram_client.client import Client
from engram_client.delivery import Patience
from engram_client.errors import (
    AccessRefused,
    DataRefused,
    EngramClientError,
    InvalidDataset,
    JobCancelled,
    JobFailed,
    LimitReached,
    Refused,
    RequestRefused,
    ServiceBusy,
    ServiceFailed,
    StateRefused,
    UnexpectedAnswer,
    UnknownName,
    Unreachable,
)
from engram_client.explanation import Explanation
from engram_client.images import ImageSource
from engram_client.jobs import LearningJob
from engram_client.labelled.dataset import Dataset, read_dataset
from engram_client.records import (
    AuditAuthor,
    AuditRecord,
    BackboneInfo,
    ImageAnswer,
    ImageFailure,
    JobRecord,
    JobUpdate,
    KeyInfo,
    LabelCandidate,
    LearnedTaskInfo,
    ModelEntry,
    ModelInfo,
    NoveltyInfo,
    OwnKeyInfo,
    ServiceHealth,
    TaskEntry,
    VersionRecord,
)
from engram_client.settings import VERSION

__all__ = [
    "VERSION",
    "AccessRefused",
    "AsyncClient",
    "AsyncLearningJob",
    "AuditAuthor",
    "AuditRecord",
    "BackboneInfo",
    "Client",
    "DataRefused",
    "Dataset",
    "EngramClientError",
    "Explanation",
    "ImageAnswer",
    "ImageFailure",
    "ImageSource",
    "InvalidDataset",
    "JobCancelled",
    "JobFailed",
    "JobRecord",
    "JobUpdate",
    "KeyInfo",
    "LabelCandidate",
    "LearnedTaskInfo",
    "LearningJob",
    "LimitReached",
    "ModelEntry",
    "ModelInfo",
    "NoveltyInfo",
    "OwnKeyInfo",
    "Patience",
    "Refused",
    "RequestRefused",
    "ServiceBusy",
    "ServiceFailed",
    "ServiceHealth",
    "StateRefused",
    "TaskEntry",
    "UnexpectedAnswer",
    "UnknownName",
    "Unreachable",
    "VersionRecord",
    "read_dataset",
]
