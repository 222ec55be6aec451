# SPDX-License-Identifier: Apache-2.0
"""What happens before the loop: lock, handover from an earlier agent, resource limits, uninstall."""
