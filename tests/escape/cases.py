# SPDX-License-Identifier: Apache-2.0
"""The attacks and twins, by kind. The table is in the product, for `ringfence policy test`."""

from __future__ import annotations

from ringfence.proof.cases import CASES, Case
from ringfence.proof.checklist import TECHNIQUES, Technique, cases_of

__all__ = ["CASES", "DETECTORS", "OPTIONAL", "PACK", "TECHNIQUES", "Case", "Technique", "cases_of"]

PACK = tuple(case for case in CASES if not case.optional and not case.detector)
OPTIONAL = tuple(case for case in CASES if case.optional)
DETECTORS = tuple(case for case in CASES if case.detector)
