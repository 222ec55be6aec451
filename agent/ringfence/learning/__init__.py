# SPDX-License-Identifier: Apache-2.0
"""`ringfence run --learn` and `--verify`: a run watched by an agent of its own, and the fences made of it."""
