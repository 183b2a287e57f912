"""Route of the audit log, `/audit`."""

from __future__ import annotations

from datetime import UTC
from typing import Annotated, Any, Literal

from fastapi import Query
from pydantic import AwareDatetime, BaseModel
from starlette.responses import JSONResponse

from service.api.route import ScopedRouter, requires_scope
from service.api.schemas import MODEL_NAME
from service.api.versions import RenamedResponse
from service.dependencies import Paging, Parts

router = ScopedRouter("admin")

Action = Literal[
    "create",
    "adopt",
    "learn",
    "cancel",
    "widen",
    "decode",
    "publish",
    "activate",
    "reject",
    "rename",
    "delete",
    "create_key",
    "revoke_key",
    "add_backbone",
    "delete_backbone",
]


class AuthorResponse(BaseModel):
    """Who asked: a key, somebody without one where none is needed, or a user of a machine that has the store."""

    kind: Literal["key", "anonymous", "cli"]
    id: str | None
    """Of the key."""
    name: str | None
    """Of the key, or of the user."""


class AuditResponse(BaseModel):
    """One changing call; fields that it does not have to do with are null."""

    id: str
    at: str
    action: str
    by: AuthorResponse | None
    model: str | None
    task: str | None
    version: int | None
    """The version that it made."""
    target: int | None
    """The version that was activated or rejected."""
    job: str | None
    key: str | None
    """The key that was made or revoked."""
    backbone: str | None
    changed: list[str] | None
    """All that the call changed, of `budget`, `decoder` and `publish`."""
    renamed: RenamedResponse | None = None
    """Of `rename`: what became of the names of `task`, which is called here as it was learned."""


class AuditPage(BaseModel):
    entries: list[AuditResponse]
    next: str | None


@router.get("/v1/audit", response_model=AuditPage)
@requires_scope("admin")
def index(
    page: Paging,
    parts: Parts,
    model: Annotated[str | None, Query(pattern=MODEL_NAME)] = None,
    action: Action | None = None,
    since: Annotated[AwareDatetime | None, Query(description="RFC 3339, with its offset.")] = None,
) -> JSONResponse:
    """Who changed what, the newest first; of one model, of one action, since a moment, as far as these are given."""
    oldest = None if since is None else since.astimezone(UTC).isoformat()
    audit = parts.vault.audit
    entries = audit.list(page.position, page.fetch, model=model, action=action, since=oldest)
    found, following = page.cut(entries, lambda entry: entry.id)
    shown: list[dict[str, Any]] = [entry.shown() for entry in found]
    return JSONResponse({"entries": shown, "next": following})
