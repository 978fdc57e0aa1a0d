"""Asks a martd through the reference client of the Model Context Protocol, as an agent would.

    python check.py URL TOKEN SCOPE

Connects in the way of today and in the older one, finds the tables, and answers three questions through
the tools. Prints one JSON document for each way; the caller knows what the answers must be.
"""

import asyncio
import json
import sys
from typing import Any

from mcp.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client


async def call(client: Client, tool: str, **arguments: Any) -> Any:
    """What a tool gives, or the text of its error."""
    result = await client.call_tool(tool, arguments)
    text = "".join(part.text for part in result.content)
    return {"error": text} if result.is_error else json.loads(text)


async def ask(url: str, headers: dict[str, str], mode: str) -> dict[str, Any]:
    """All questions over one connection."""
    transport = streamable_http_client(f"{url}/mcp", http_client=create_mcp_http_client(headers=headers))
    async with Client(transport, mode=mode) as client:
        tools = (await client.list_tools()).tools
        return {
            "version": client.protocol_version,
            "instructions": client.instructions,
            "tools": {tool.name: tool.annotations.read_only_hint for tool in tools},
            "marts": await call(client, "list_marts"),
            "described": await call(client, "describe_mart", name="orders"),
            "freshness": await call(client, "freshness"),
            "total": await call(client, "query", sql="SELECT sum(amount) AS total FROM mart.orders"),
            "by_kind": await call(
                client,
                "query",
                sql="SELECT kind, count(*) AS n FROM mart.orders GROUP BY kind ORDER BY kind",
            ),
            "above": await call(
                client,
                "query",
                sql="SELECT id FROM mart.orders WHERE amount > $least ORDER BY id",
                params={"least": 20},
                limit=2,
            ),
            "everything": await call(client, "query", sql="SELECT repeat('x', 1000) AS x FROM range(1000)"),
            "others": await call(client, "query", sql="SELECT count(*) AS n FROM mart.orders WHERE user_id <> 7"),
            "wrong": await call(client, "query", sql="SELECT nothing FROM mart.orders"),
            "writes": await call(client, "query", sql="DROP TABLE mart.orders"),
            "unknown": await call(client, "describe_mart", name="order"),
            "misnamed": await call(client, "query", statement="SELECT 1"),
        }


def main() -> None:
    """Both ways."""
    url, token, scope = sys.argv[1:]
    headers = {"Authorization": f"Bearer {token}", "Martd-Scope": scope}
    for mode in ("auto", "legacy"):
        print(json.dumps(asyncio.run(ask(url, headers, mode))))


if __name__ == "__main__":
    main()
