"""The backend as it runs in production: uvicorn, on a port of its own."""

import threading

import httpx
import uvicorn
from backend.app import create_app


class Backend:
    """Runs until the end of a `with`."""

    def __init__(self, settings):
        config = uvicorn.Config(create_app(settings), host="127.0.0.1", port=0, log_level="warning")
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, daemon=True)

    def __enter__(self):
        started = threading.Event()
        startup = self._server.startup

        async def announced(*arguments, **named):
            await startup(*arguments, **named)
            started.set()

        self._server.startup = announced
        self._thread.start()
        assert started.wait(30), "the backend does not start"
        address = self._server.servers[0].sockets[0].getsockname()
        self.url = f"http://{address[0]}:{address[1]}"
        return self

    def __exit__(self, *_):
        self._server.should_exit = True
        self._thread.join()

    def asks(self, user):
        """An HTTP client of that user's."""
        return httpx.Client(base_url=self.url, headers={"X-User-Id": user}, timeout=60)
