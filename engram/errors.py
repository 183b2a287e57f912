"""The errors that the learner raises, as one tree.

    EngramError
      InvalidDefinition             a model cannot be made like this
      InvalidOptions                a task cannot be learned like this
      InputError                    what was handed in cannot be used
        ImageError
          EmptyImage                zero bytes
          NotAnImage                bytes that no allowed image format claims
          TruncatedImage            an image that ends early or is damaged inside
          UnsupportedImage          an intact image of a kind that is not read, such as 12-bit JPEG
          ImageTooLarge             more pixels than allowed, judged by its header
          ImageTooCostly            takes more time, memory, scans or parts than allowed
          WrongChannels             colour for a grey model, or the reverse
        ArchiveError
          NotAnArchive              neither zip nor tar
          UnsafePath                an absolute path, a drive, or `..`
          BadName                   a name of unknown encoding, or that is taken for another
          ArchiveLink               a symbolic or hard link, a device, a pipe
          TooManyEntries            more entries than allowed
          SuspiciousRatio           unpacks to implausibly many bytes
          ArchiveTooLarge           unpacks to more bytes than allowed
          BadLayout                 not `<class>/<image>`, optionally under `train/` and `val/`
          AmbiguousLabel            several tasks have the label that a folder is called
        ExamplesError
          TooFewClasses             fewer classes than the method needs
          CommonsNeedsClasses       filters would be learned from the images of a single class
          TooFewImages              a class with fewer than two images to learn from
          TooManyUnreadable         more unreadable images than allowed
          RecallUnmeasurable        too few held-out images of a class for `min_recall`
    InvalidBackbone                 a network that a user brings cannot be used
      UnknownArchitecture           no architecture is called so
      ArchitectureMissing           the package that has the architecture is not installed here
      PickleRefused                 weights as a pickle, which can run code
      DamagedWeights                bytes that are no safetensors file, or not the one that was stored
      MissingTensors                the architecture has tensors that the file has not
      SurplusTensors                the file has tensors that the architecture has not
      WrongShapes                   a tensor is of another shape or type than the architecture's
      NotFinite                     a weight, or an output, is infinite or no number
      UnsuitedSize                  the network cannot take images of this size
      BackboneTooLarge              more parameters, operations or tensors than allowed
    ConversionRefused               a pickle would be read in a process that has a network
    TaskExists                      the name is taken
    UnknownTask, UnknownLabel, UnknownComposite
    EngineMissing                   what the engine of the model needs is not installed here
    PrecisionMissing                this machine does not compute in the precision of the model
    DeviceMissing                   a GPU is asked for, and PyTorch finds none here
    NoNetwork                       a task of one class has no logit that a heatmap could explain
    NothingLearned                  the model has no task yet
    AnswersOnly                     the model was restored without what learning and saving need
    CapacityExhausted               no unit is left in some layer
    LearningFailed                  a task was learned, but not well enough for what was asked
      AccuracyTooLow                under `min_accuracy` on held-out images
      RecallTooLow                  under `min_recall` on those of some class
      RecognitionTooLow             under `min_recognised` of them
    Cancelled                       the caller asked to stop
    RetentionViolated               an old answer would change; nothing is published
      AnswersDiffer                 this machine gives other answers than those certified; it does not serve them
    SnapshotError
      DamagedSnapshot               bytes that do not hold what they must
      UnsupportedFormat             written by a version this one cannot read

Each has a stable `code`, which the HTTP interface repeats.
"""

from __future__ import annotations

from typing import ClassVar


class EngramError(Exception):
    """Base of all errors of the learner."""

    code: ClassVar[str] = "engram_error"


class InvalidDefinition(EngramError):
    code = "invalid_definition"


class InvalidOptions(EngramError):
    code = "invalid_options"


class InputError(EngramError):
    code = "invalid_input"


class ImageError(InputError):
    code = "invalid_image"


class EmptyImage(ImageError):
    code = "empty_image"


class NotAnImage(ImageError):
    code = "not_an_image"


class TruncatedImage(ImageError):
    code = "truncated_image"


class UnsupportedImage(ImageError):
    code = "unsupported_image"


class ImageTooLarge(ImageError):
    code = "image_too_large"


class ImageTooCostly(ImageError):
    code = "image_too_costly"


class WrongChannels(ImageError):
    code = "wrong_channels"


class ArchiveError(InputError):
    code = "invalid_archive"


class NotAnArchive(ArchiveError):
    code = "not_an_archive"


class UnsafePath(ArchiveError):
    code = "archive_unsafe_path"


class BadName(ArchiveError):
    code = "archive_bad_name"


class ArchiveLink(ArchiveError):
    code = "archive_link"


class TooManyEntries(ArchiveError):
    code = "archive_too_many_entries"


class SuspiciousRatio(ArchiveError):
    code = "archive_suspicious_ratio"


class ArchiveTooLarge(ArchiveError):
    code = "archive_too_large"


class BadLayout(ArchiveError):
    code = "archive_bad_layout"


class AmbiguousLabel(ArchiveError):
    code = "ambiguous_label"


class ExamplesError(InputError):
    code = "invalid_examples"


class TooFewClasses(ExamplesError):
    code = "too_few_classes"


class CommonsNeedsClasses(ExamplesError):
    code = "commons_needs_classes"


class TooFewImages(ExamplesError):
    code = "too_few_images"


class TooManyUnreadable(ExamplesError):
    code = "too_many_unreadable_images"


class RecallUnmeasurable(ExamplesError):
    code = "recall_unmeasurable"


class InvalidBackbone(EngramError):
    code = "invalid_backbone"


class UnknownArchitecture(InvalidBackbone):
    code = "unknown_architecture"


class ArchitectureMissing(InvalidBackbone):
    code = "architecture_missing"


class PickleRefused(InvalidBackbone):
    code = "pickle_refused"


class DamagedWeights(InvalidBackbone):
    code = "damaged_weights"


class MissingTensors(InvalidBackbone):
    code = "missing_tensors"


class SurplusTensors(InvalidBackbone):
    code = "surplus_tensors"


class WrongShapes(InvalidBackbone):
    code = "wrong_shapes"


class NotFinite(InvalidBackbone):
    code = "not_finite"


class UnsuitedSize(InvalidBackbone):
    code = "unsuited_size"


class BackboneTooLarge(InvalidBackbone):
    code = "backbone_too_large"


class ConversionRefused(EngramError):
    code = "conversion_refused"


class TaskExists(EngramError):
    code = "task_exists"


class UnknownTask(EngramError):
    code = "unknown_task"


class UnknownLabel(EngramError):
    code = "unknown_label"


class UnknownComposite(EngramError):
    code = "unknown_composite"


class NotExportable(EngramError):
    code = "not_exportable"


class EngineMissing(EngramError):
    code = "engine_missing"


class PrecisionMissing(EngramError):
    code = "precision_missing"


class DeviceMissing(EngramError):
    code = "device_missing"


class NoNetwork(EngramError):
    code = "no_network"


class NothingLearned(EngramError):
    code = "nothing_learned"


class AnswersOnly(EngramError):
    code = "answers_only"


class CapacityExhausted(EngramError):
    code = "capacity_exhausted"


class LearningFailed(EngramError):
    code = "learning_failed"


class AccuracyTooLow(LearningFailed):
    code = "accuracy_too_low"


class RecallTooLow(LearningFailed):
    code = "recall_too_low"


class RecognitionTooLow(LearningFailed):
    code = "recognition_too_low"


class Cancelled(EngramError):
    code = "cancelled"


class RetentionViolated(EngramError):
    code = "retention_violated"


class AnswersDiffer(RetentionViolated):
    """This machine gives other answers than those certified, so that it does not serve them."""

    code = "answers_differ"


class SnapshotError(EngramError):
    code = "invalid_snapshot"


class DamagedSnapshot(SnapshotError):
    code = "damaged_snapshot"


class UnsupportedFormat(SnapshotError):
    code = "unsupported_format"


def require_type(what: str, value: object, kind: type[object], error: type[EngramError]) -> None:
    """Raise `error` where an argument is of another type: `what` (such as "options") are a `kind`."""
    if not isinstance(value, kind):
        raise error(f"{what} must be of type {kind.__name__}, not {type(value).__name__}")
