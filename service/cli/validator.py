"""Validator that has the learner read the definitions, blobs and versions which the vault keeps."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

from pydantic import ValidationError

from engram.certificate import Certificate, certify, compare, disagreement
from engram.checkpointing.pieces import Piece
from engram.checkpointing.tensors import kind_of
from engram.config.backbones import BackboneDescription
from engram.config.definition import Definition
from engram.data.reference.decoder_digest import DecoderDigest
from engram.errors import ArchitectureMissing, EngineMissing, EngramError, PrecisionMissing, UnsupportedFormat
from engram.memory import restore
from engram.nn.pretrained.weights import read_header
from vault import errors
from vault.certificates.answers import CertifiedAnswers
from vault.commit_log import Commit, record_path
from vault.maintenance.validator import AnswersComparison, DecoderChange, Role
from vault.models import Model
from vault.storage.object_store import ObjectStore

NOT_HERE = (ArchitectureMissing, EngineMissing, PrecisionMissing)
"""Errors of versions that this machine cannot compute, whatever is stored."""


class LearnerValidator:
    """Validator that finds out whether the learner can read definitions, blobs and versions.

    Answers are compared with certificates only where the environment is the certificate's: `engram.runtime.configure`
    must have set the services' number of threads.
    """

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects
        self._answers = CertifiedAnswers(objects)

    def definition(self, path: str, definition: Mapping[str, Any], decoding: Mapping[str, Any] | None = None) -> None:
        """Return if a model can be made of a definition; else raise as `vault.maintenance.validator` says."""
        with _named(path):
            Definition.load(definition, decoding)

    def blob(self, path: str, role: Role, data: bytes) -> None:
        """Return if the learner wrote a blob; else raise as `vault.maintenance.validator` says."""
        with _named(path):
            if role == "weights":
                read_header(data)
            elif role == "certificate":
                Certificate.from_dict(json.loads(data))
            elif role == "report":
                dict(json.loads(data))
            else:
                kind_of(data)

    def backbone(self, path: str, description: Mapping[str, Any]) -> None:
        """Return if a description is one of a network; else raise as `vault.maintenance.validator` says."""
        newest = BackboneDescription.model_fields["format"].default
        with _named(path):
            if isinstance(found := description.get("format"), int) and found > newest:
                raise UnsupportedFormat(f"this backbone is of format {found}, and {newest} is the newest known")
            BackboneDescription.model_validate(description)

    def version(self, model: Model, commit: Commit) -> AnswersComparison:
        """Load a version and compare its answers with its certificate, if it has one.

        An environment without the architecture of the model's network, its engine or its precision is another one.
        """
        try:
            return self._version(model, commit)
        except NOT_HERE as error:
            return AnswersComparison(elsewhere=f"The network cannot be computed here: {error}.")

    def _version(self, model: Model, commit: Commit) -> AnswersComparison:
        """As `version`; raises one of `NOT_HERE`."""
        get = self._objects.get_blob
        assert commit.recogniser is not None, "every commit names its recogniser"
        with _named(record_path(model.name, model.lineage, commit.version)):
            memory = restore(
                Definition.load(model.definition, commit.decoding),
                [Piece(name, partial(get, name)) for name in commit.engrams],
                get(commit.recogniser),
                [Piece(name, partial(get, name)) for name in commit.kept],
                commit.budget,
            )
            if commit.certificate is None:
                return AnswersComparison()
            certified = Certificate.from_dict(json.loads(get(commit.certificate)))
            now = certify(memory)
        if (other := certified.elsewhere(now)) is None:
            return AnswersComparison(tuple(compare(certified, now)))
        kept = {task: self._answers.get(model, sha) for task, sha in certified.tasks.items()}
        changed = [
            task
            for task, answers in kept.items()
            if certified.exact
            and answers is not None
            and disagreement(answers, now.logits.get(task, b""), memory.definition.precision)
        ]
        why = f"It was certified in another environment: {other}."
        return AnswersComparison(tuple(changed), why, near=None not in kept.values() and not changed)

    def decoder(self, model: Model, commit: Commit) -> DecoderChange | None:
        """The change of what a version's decoder makes of images here since it was certified; None without one."""
        if commit.certificate is None:
            return None
        with _named(record_path(model.name, model.lineage, commit.version)):
            certified = Certificate.from_dict(json.loads(self._objects.get_blob(commit.certificate))).decoder
            now = DecoderDigest.of(Definition.load(model.definition, commit.decoding))
        if certified is None or not now.changed_since(certified):
            return None
        return DecoderChange(now.describe_change(certified), now.pillow != certified.pillow)


@contextmanager
def _named(path: str) -> Iterator[None]:
    """A block in which the learner's errors are raised as errors of the vault that name `path`.

    But `NOT_HERE`, which are no fault of what is stored.
    """
    try:
        yield
    except NOT_HERE:
        raise
    except UnsupportedFormat as error:
        raise errors.UnsupportedRecord(path, str(error)) from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise errors.Damaged(path, f"it does not fit: {where}: {first['msg']}") from error
    except KeyError as error:
        raise errors.Damaged(path, f"it lacks {error}") from error
    except (EngramError, ValueError, TypeError) as error:
        raise errors.Damaged(path, str(error)) from error
