"""What a service has counted, as Prometheus reads it."""

from collections import Counter

import httpx
from prometheus_client.parser import text_string_to_metric_families

Sample = tuple[str, frozenset[tuple[str, str]]]


class Metrics(Counter[Sample]):
    """Samples by name and labels; the difference of two says what was counted between them."""

    def of(self, name: str, **labels: str) -> float:
        """Returns the sum of the samples of a name whose labels are among others the given ones."""
        wanted = set(labels.items())
        return sum(value for (found, has), value in self.items() if found == name and wanted <= has)

    def labels(self, label: str) -> set[str]:
        """Returns every value of a label of what was counted."""
        return {value for (_, has), count in self.items() if count for name, value in has if name == label}


def parsed(text: str) -> Metrics:
    """Returns the samples of an exposition."""
    found = Metrics()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            place = sample.name, frozenset(sample.labels.items())
            assert place not in found, f"{place} is there twice"
            found[place] = sample.value  # type: ignore[assignment]
    return found


async def scrape(client: httpx.AsyncClient) -> Metrics:
    """Returns what a service says."""
    answer = await client.get("/metrics")
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/plain; version=")
    return parsed(answer.text)


def since(before: Metrics, now: Metrics) -> Metrics:
    """Returns what was counted between two scrapes."""
    found = Metrics(now)
    found.subtract(before)
    return found
