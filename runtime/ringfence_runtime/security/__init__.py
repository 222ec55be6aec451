# SPDX-License-Identifier: Apache-2.0
"""What a workload may do: capabilities, seccomp, Landlock and the labels of the host's LSM."""
