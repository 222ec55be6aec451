# SPDX-License-Identifier: Apache-2.0
"""Networks of sandboxes. `plan` reads --network and --publish; the modes `none`, `host` and `container`
need no more.

Everything else (bridges, macvlan, ipvlan, published ports) is in modules that are imported when a sandbox
has one, and only `links` imports pyroute2.
"""
