# SPDX-License-Identifier: Apache-2.0
"""Pressure and throttling, from files as kernels write them (psi.rst, cgroup-v2.rst)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ringfence.containers.model import Container
from ringfence.export.container_metrics import PressureMetrics
from tests.support.descriptors import open_descriptors

PSI = """\
some avg10=0.00 avg60=0.00 avg300=0.00 total=2500000
full avg10=0.00 avg60=0.00 avg300=0.00 total=500000
"""


def samples(metrics: PressureMetrics, *containers: Container) -> dict[tuple[str, ...], float]:
    """Labels' values -> value."""
    found: dict[tuple[str, ...], float] = {}
    for family in metrics.collect(containers):
        for one in family.samples:
            found[(one.name, *one.labels.values())] = one.value
    return found


def container(path: str) -> Container:
    """Of this cgroup."""
    return Container("web", 7, 1, cgroup_path=path)


def test_cgroup_v2_has_pressure_and_throttling(tmp_path: Path) -> None:
    """Microseconds become seconds."""
    directory = tmp_path / "pods/web"
    directory.mkdir(parents=True)
    (directory / "memory.pressure").write_text(PSI)
    (directory / "cpu.stat").write_text("usage_usec 9\nnr_throttled 3\nthrottled_usec 1500000\n")
    assert samples(PressureMetrics(tmp_path, None), container("/pods/web")) == {
        ("ringfence_container_pressure_seconds_total", "web", "memory", "some"): 2.5,
        ("ringfence_container_pressure_seconds_total", "web", "memory", "full"): 0.5,
        ("ringfence_container_throttled_seconds_total", "web"): 1.5,
    }


def test_cgroup_v1_has_throttling(tmp_path: Path) -> None:
    """In nanoseconds."""
    (tmp_path / "web").mkdir()
    (tmp_path / "web/cpu.stat").write_text("nr_periods 1\nnr_throttled 1\nthrottled_time 2000000000\n")
    assert samples(PressureMetrics(None, tmp_path), container("/web")) == {
        ("ringfence_container_throttled_seconds_total", "web"): 2.0
    }


@pytest.mark.parametrize(("files", "opened_again"), [(10, 0), (0, 2)])
def test_what_a_container_does_not_have_is_not_asked_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: int, opened_again: int
) -> None:
    """A file for each resource and container, at each scrape, is most of what a scrape takes."""
    (tmp_path / "web").mkdir()
    (tmp_path / "web/cpu.stat").write_text("throttled_usec 1000000\n")
    opened: list[str] = []
    real = os.open

    def watch(path: str, flags: int) -> int:
        opened.append(path.removeprefix(str(tmp_path)))
        return real(path, flags)

    monkeypatch.setattr(os, "open", watch)
    metrics = PressureMetrics(tmp_path, None, files)
    for seconds in (1, 2, 3):
        (tmp_path / "web/cpu.stat").write_text(f"throttled_usec {seconds}000000\n")
        assert [*samples(metrics, container("/web")).values()] == [seconds], "an old value"
    missing = [f"/web/{name}.pressure" for name in ("cpu", "memory", "io")]
    assert opened == [*missing, *["/web/cpu.stat"] * (1 + opened_again)]
    samples(metrics)
    samples(metrics, container("/web"))
    assert opened[-4:] == [*missing, "/web/cpu.stat"], "forgotten with the container"
    metrics.close()


def test_files_of_containers_that_are_gone_are_given_back(tmp_path: Path) -> None:
    """As many descriptors as before; and never more than were allowed."""
    several = []
    for number in range(5):
        (tmp_path / f"c{number}").mkdir()
        (tmp_path / f"c{number}/cpu.stat").write_text("throttled_usec 1\n")
        several.append(Container(f"c{number}", number, number, cgroup_path=f"/c{number}"))
    before = open_descriptors()
    metrics = PressureMetrics(tmp_path, None, 3)
    for _ in range(2):
        assert len(samples(metrics, *several)) == 5
        assert open_descriptors() == before + 3
    samples(metrics, several[4])
    assert open_descriptors() == before + 1
    metrics.close()
    assert open_descriptors() == before


def test_what_is_not_there_or_is_nonsense_has_no_series(tmp_path: Path) -> None:
    """A container that ended, one whose path is not known, files of another kind."""
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd/io.pressure").write_bytes(b"\xffsome total=x\n")
    (tmp_path / "odd/cpu.stat").mkdir()
    odd = [container(path) for path in ("/gone", "", "/odd")]
    assert samples(PressureMetrics(tmp_path, tmp_path), *odd) == {}
