# SPDX-License-Identifier: Apache-2.0
"""A fast writer of Prometheus' text format (version 0.0.4) and of OpenMetrics (1.0, with exemplars).

prometheus-client's own writer visits each sample several times, and creates an object for each: 12 us
per sample, 160 ms for 500 containers, in threads that hold the interpreter's lock. Here each line is
written once; families with many series per container (`BulkFamily`) keep the text that did not change
since the last scrape.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.openmetrics.exposition import generate_latest as latest_openmetrics
from prometheus_client.samples import Exemplar, Sample
from prometheus_client.utils import floatToGoString

__all__ = ["CONTENT_TYPE", "OPENMETRICS_TYPE", "BulkFamily", "exposition", "quoted"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS_TYPE = "application/openmetrics-text; version=1.0.0; charset=utf-8"
_PLAIN = ("gauge", "counter", "histogram")
Rows = Iterable[tuple[Sequence[str], float]]


@lru_cache(16384)
def quoted(label: str) -> str:
    """Returns a label's value, escaped for use between quotes."""
    return label.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


class BulkFamily(Metric):
    """A gauge or counter (with the suffix `_total`) of many series, all with the same labels."""

    def __init__(self, kind: str, name: str, documentation: str, labels: Sequence[str]) -> None:
        self._blocks: list[tuple[str, Callable[[], Rows]]] = []
        super().__init__(name, documentation, kind)
        self._labels = tuple(labels)
        self._full = f"{name}_total" if kind == "counter" else name

    def prefix(self, labels: Sequence[str]) -> str:
        """Returns the text before the value of a series; it depends on the labels only."""
        pairs = (f'{name}="{quoted(label)}"' for name, label in zip(self._labels, labels, strict=True))
        return f"{self._full}{{{','.join(pairs)}}} "

    def add_metric(self, labels: Sequence[str], value: float) -> None:
        """Adds one series, like prometheus-client's families."""
        self.add_block(f"{self.prefix(labels)}{value}\n", lambda: [(labels, value)])

    def add_block(self, text: str, rows: Callable[[], Rows]) -> None:
        """Adds whole lines; `rows` returns the same series for readers of `samples`."""
        self._blocks.append((text, rows))

    @property
    def samples(self) -> list[Sample]:
        """The samples in prometheus-client's form."""
        return [
            Sample(self._full, dict(zip(self._labels, labels, strict=True)), value)
            for _, rows in self._blocks
            for labels, value in rows()
        ]

    @samples.setter
    def samples(self, value: list[Sample]) -> None:
        """Ignored: the base class assigns an empty list."""

    def text(self, *, openmetrics: bool = False) -> str:
        """Returns the lines of the family."""
        return _head(self, openmetrics=openmetrics) + "".join(text for text, _ in self._blocks)


class _Fixed(CollectorRegistry):
    """Families that have already been collected."""

    def __init__(self, families: Iterable[Metric]) -> None:
        super().__init__()
        self._families = families

    def collect(self) -> Iterator[Metric]:
        return iter(self._families)


def exposition(registry: CollectorRegistry, *, openmetrics: bool = False) -> bytes:
    """Returns one scrape. Labels are escaped where they are made; invalid text must not lose the others."""
    texts = [_text(family, openmetrics=openmetrics) for family in registry.collect()]
    return ("".join(texts) + ("# EOF\n" if openmetrics else "")).encode("utf-8", "replace")


def _head(family: Metric, *, openmetrics: bool) -> str:
    """Returns HELP and TYPE. OpenMetrics names a counter without `_total`, and escapes quotes as well."""
    total = family.type == "counter" and not openmetrics
    name = f"{family.name}_total" if total else family.name
    text = family.documentation.replace("\\", "\\\\").replace("\n", "\\n")
    if openmetrics:
        text = text.replace('"', '\\"')
    return f"# HELP {name} {text}\n# TYPE {name} {family.type}\n"


def _text(family: Metric, *, openmetrics: bool) -> str:
    if isinstance(family, BulkFamily):
        return family.text(openmetrics=openmetrics)
    if family.type not in _PLAIN or any(sample.timestamp for sample in family.samples):
        if openmetrics:
            text = latest_openmetrics(_Fixed([family])).decode()  # type: ignore[no-untyped-call]
            return str(text).removesuffix("# EOF\n")
        return generate_latest(_Fixed([family])).decode()
    lines = [_head(family, openmetrics=openmetrics)]
    for sample in family.samples:
        labels = ",".join([f'{key}="{quoted(value)}"' for key, value in sample.labels.items()])
        name = f"{sample.name}{{{labels}}}" if labels else sample.name
        exemplar = _exemplar(sample.exemplar) if openmetrics and sample.exemplar else ""
        lines.append(f"{name} {_number(sample.value)}{exemplar}\n")
    return "".join(lines)


def _exemplar(exemplar: Exemplar) -> str:
    labels = ",".join(f'{key}="{quoted(value)}"' for key, value in exemplar.labels.items())
    when = f" {exemplar.timestamp}" if exemplar.timestamp else ""
    return f" # {{{labels}}} {_number(exemplar.value)}{when}"


def _number(value: float) -> str:
    """Formats a value; most are whole numbers."""
    return str(value) if type(value) is int else str(floatToGoString(value))  # type: ignore[no-untyped-call]
