# SPDX-License-Identifier: Apache-2.0
"""The commands. The only place that prints, and that turns an error into an exit code. One module a
command."""
