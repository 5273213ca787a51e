"""Asks whether the service is alive, from a process of its own: python -m tests.faults.probe HOST PORT."""

import http.client
import sys
import time

EVERY_S = 0.05


def main(host: str, port: int) -> None:
    """Prints how many milliseconds each answer took, and nothing for those that did not come."""
    while True:
        began = time.perf_counter()
        connection = http.client.HTTPConnection(host, port, timeout=10)
        try:
            connection.request("GET", "/livez")
            if connection.getresponse().status == 200:
                sys.stdout.write(f"{(time.perf_counter() - began) * 1_000:.1f}\n")
                sys.stdout.flush()
        except (OSError, http.client.HTTPException):
            pass
        connection.close()
        time.sleep(EVERY_S)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
