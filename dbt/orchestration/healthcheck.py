"""Whether the webserver answers, and could load the code: it answers without that, too. For containers; no more than Python."""

import json
import sys
import urllib.request

QUERY = """{ workspaceOrError {
    ... on Workspace { locationEntries { name locationOrLoadError { __typename ... on PythonError { message } } } }
    ... on PythonError { message }
} }"""


def problem(url):
    """What is wrong, if anything is."""
    request = urllib.request.Request(
        f"{url}/graphql", json.dumps({"query": QUERY}).encode(), {"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            workspace = json.load(response)["data"]["workspaceOrError"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"{url} does not answer: {error!r}"
    entries = workspace.get("locationEntries")
    if not entries:
        return f"no code location: {workspace.get('message', 'the workspace is empty')}"
    for entry in entries:
        loaded = entry["locationOrLoadError"] or {}
        if loaded.get("__typename") != "RepositoryLocation":
            return f"the code location {entry['name']} is not loaded: {loaded.get('message', 'not yet')}"
    return None


if __name__ == "__main__":
    sys.exit(problem(sys.argv[1] if sys.argv[1:] else "http://127.0.0.1:3000"))
