# SPDX-License-Identifier: Apache-2.0
"""`ringfence run --learn` and `--verify`: a run under a private agent, and the fences derived from it."""
