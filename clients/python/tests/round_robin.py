"""A load balancer that knows TCP alone."""

import itertools
import socket
import threading


class RoundRobin:
    """Leads connections to servers in turn, until the end of a `with`."""

    def __init__(self, urls):
        places = [url.removeprefix("http://").rsplit(":", 1) for url in urls]
        self._turns = itertools.cycle([(host, int(port)) for host, port in places])
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"

    def __enter__(self):
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_):
        self._socket.close()

    def _accept(self):
        while True:
            try:
                client, _ = self._socket.accept()
            except OSError:
                return
            server = socket.create_connection(next(self._turns))
            for source, target in ((client, server), (server, client)):
                threading.Thread(target=_pass_on, args=(source, target), daemon=True).start()


def _pass_on(source, target):
    try:
        while data := source.recv(1 << 16):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        pass  # the other end is gone
