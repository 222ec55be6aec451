# SPDX-License-Identifier: Apache-2.0
"""Networks of sandboxes. The modes `none`, `host` and `container` need `plan` and nothing more.

plan.py, ports.py   --network and --publish as values
pool.py             addresses, links and ports that are held, on disk, under one lock
rules.py, nft.py    the table of nftables that follows from them; netlink.py: bytes
links.py            bridges, cables, sub-interfaces: the only module that imports pyroute2
attach.py           lease, attach, release
"""
