# SPDX-License-Identifier: Apache-2.0
"""Networks of sandboxes. The modes `none`, `host` and `container` need `plan` only.

plan.py, ports.py   --network and --publish as values
pool.py             leased addresses, links and ports, on disk, under one lock
rules.py, nft.py    the nftables table derived from them; netlink.py: bytes
links.py            bridges, cables, sub-interfaces: the only module that imports pyroute2
attach.py           lease, attach, release
"""
