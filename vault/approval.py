"""Approval: which version of a model answers, which ones wait to be activated, which is learned on.

The newest commit says it all: `active` names the version that answers, if that is another, and `candidates` those that
wait. What is learned builds on the newest candidate, so that activating a later one brings the earlier ones with it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

from vault.commit_log import Commit, CommitLog, Kind, record_path
from vault.errors import CandidatesWaiting, Damaged, NotACandidate, NotFound, UnknownModel, Unreadable

Status = Literal["candidate", "active", "past"]


def answering(log: CommitLog, model: str, head: Commit, known: Commit | None = None) -> Commit:
    """The version that answers while `head` is the newest.

    Parameters
    ----------
    known
        A version that was read before.

    Raises
    ------
    UnknownModel
    Unreadable
        Its record cannot be read, or is missing.
    """
    if head.active is None:
        return head
    if known is not None and (known.lineage, known.version) == (head.lineage, head.active):
        return known
    try:
        return log.read(model, head.active)
    except UnknownModel:
        raise
    except NotFound as error:
        raise Damaged(record_path(model, head.lineage, head.active), "it is missing") from error


def learned_on(log: CommitLog, model: str) -> Commit | None:
    """The newest version with the content that the next task is learned on: that of the newest candidate, if any.

    Raises
    ------
    UnknownModel
    Unreadable, NotFound
        A record cannot be read, or is missing.
    """
    head = log.head(model)
    return None if head is None else content_learned_on(log, model, head)


def content_learned_on(log: CommitLog, model: str, head: Commit) -> Commit:
    """As `learned_on`, while `head` is the newest; raises as that."""
    if not head.candidates or head.candidates[-1] == head.version:
        return head
    states = {name: getattr(head, name) for name in ("version", "publish", "active", "candidates")}
    return replace(log.read(model, head.candidates[-1]), **states)


def newest(log: CommitLog, model: str) -> Commit | None:
    """The newest version that can be read."""
    try:
        return log.head(model)
    except Unreadable:
        return next(iter(log.list(model, limit=1, newest_first=True, lenient=True)), None)


def status(version: int, head: Commit) -> Status:
    """What becomes of a version while `head` is the newest."""
    if version == active_number(head):
        return "active"
    return "candidate" if version in head.candidates else "past"


def active_number(head: Commit) -> int:
    """The number of the version that answers while `head` is the newest."""
    return head.version if head.active is None else head.active


def learned(on: Commit, kind: Literal["learn", "rename"] = "learn", **content: Any) -> Commit:
    """The version that is made `on` what is learned on: a candidate where somebody is to activate it."""
    if on.publish == "auto":
        return on.following(kind, **content, active=None, candidates=())
    candidates = (*on.candidates, on.version + 1)
    return on.following(kind, **content, active=active_number(on), candidates=candidates)


def changed(head: Commit, kind: Kind, **changes: Any) -> Commit:
    """The version that changes something of the one that answers.

    Raises
    ------
    CandidatesWaiting
        Others were learned on that, and the change would not be theirs.
    """
    if head.candidates:
        raise CandidatesWaiting(head.candidates)
    return head.following(kind, **changes, active=None)


def activated(head: Commit, target: int, **content: Any) -> Commit:
    """The version that answers with the `content` of `target`; candidates up to that one wait no longer."""
    waiting = tuple(one for one in head.candidates if one > target) if target in head.candidates else head.candidates
    return head.following("activate", target=target, **content, active=None, candidates=waiting)


def rejected(log: CommitLog, model: str, head: Commit, target: int, **about: Any) -> Commit:
    """The version after which `target` waits no longer, nor do those that were learned on it.

    What answers stays as it is.

    Raises
    ------
    NotACandidate
    UnknownModel, Unreadable
    """
    if target not in head.candidates:
        raise NotACandidate(model, target)
    serving = answering(log, model, head)
    waiting = tuple(one for one in head.candidates if one < target)
    content = replace(serving, version=head.version, publish=head.publish)
    return content.following("reject", target=target, **about, active=serving.version, candidates=waiting)
