"""The routes.

    ANALYTICS_SOURCE=martd uvicorn --factory backend.app:create_app
"""

import datetime as dt
from typing import Annotated, Any
from uuid import UUID

import duckdb
from fastapi import Depends, FastAPI, Header, HTTPException, Query, Request
from fastapi.responses import JSONResponse
from martd_client import MartdError, QueryError, QueryTimeout

from .queries import Filters, NotOwned, check_ownership, query_dataset
from .settings import Settings
from .sources import source

MAX_LIMIT = 10_000


def user(
    x_user_id: Annotated[str | None, Header()] = None,
    authorization: Annotated[str | None, Header()] = None,
) -> UUID:
    """Who asks. A stand-in for a real sign-in: the header, or the bearer token, is the user's id."""
    scheme, _, token = (authorization or "").partition(" ")
    given = x_user_id or (token if scheme.lower() == "bearer" else "")
    try:
        return UUID(given)
    except ValueError:
        raise HTTPException(401, "say who you are: X-User-Id: <uuid>") from None


User = Annotated[UUID, Depends(user)]


def create_app(settings: Settings | None = None) -> FastAPI:
    """The backend, with settings from the environment unless they are given."""
    analytics = source(settings or Settings.from_environment())
    app = FastAPI(title="Analytics")

    def dataset(dataset_id: str, _: User) -> dict[str, Any]:
        found = analytics.schema(dataset_id)
        if found is None:
            raise HTTPException(404, f"no dataset {dataset_id}")
        return found

    Dataset = Annotated[dict[str, Any], Depends(dataset)]

    @app.get("/datasets")
    def datasets(_: User) -> dict[str, Any]:
        return analytics.datasets()

    @app.get("/datasets/{dataset_id}/schema")
    def schema(dataset: Dataset) -> dict[str, Any]:
        return dataset

    @app.get("/datasets/{dataset_id}/query")
    def query(
        user_id: User,
        dataset: Dataset,
        start_date: dt.date | None = None,
        end_date: dt.date | None = None,
        account_ids: Annotated[list[UUID], Query()] = [],  # noqa: B006 (FastAPI copies it)
        tag_ids: Annotated[list[UUID], Query()] = [],  # noqa: B006
        limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = 1000,
        offset: Annotated[int, Query(ge=0)] = 0,
    ) -> dict[str, Any]:
        filters = Filters(start_date, end_date, account_ids, tag_ids)
        with analytics.session() as session:
            check_ownership(session, user_id, filters)
            return query_dataset(session, dataset, user_id, filters, limit, offset)

    @app.get("/health")
    def health() -> dict[str, str]:
        """Whether this answers at all, for whoever starts and stops it: it knows no user."""
        return {"status": "ok"}

    @app.get("/status")
    def status(_: User) -> dict[str, Any]:
        has_datasets = analytics.manifest_available()
        return {
            "duckdb_available": analytics.check_connection(),
            "manifest_available": has_datasets,
            "dataset_count": analytics.datasets()["total"] if has_datasets else 0,
            "last_refresh": analytics.last_refresh_time(),
        }

    @app.exception_handler(NotOwned)
    def not_owned(_: Request, error: NotOwned) -> JSONResponse:
        return _problem(404, str(error))

    @app.exception_handler(FileNotFoundError)
    @app.exception_handler(duckdb.IOException)
    @app.exception_handler(MartdError)
    def failed(_: Request, error: Exception) -> JSONResponse:
        """No data yet, a file that dbt has locked, a martd that does not answer."""
        if isinstance(error, QueryError):
            raise error  # a statement of ours that is wrong: 500, and a trace in the log
        return _problem(504 if isinstance(error, QueryTimeout) else 503, "analytics are not available at the moment")

    return app


def _problem(status: int, detail: str) -> JSONResponse:
    headers = {"Retry-After": "1"} if status == 503 else None
    return JSONResponse({"detail": detail}, status, headers)
